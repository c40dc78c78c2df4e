//! The command line: one file a command group. All but `init`, `up`, `cluster recover`, `demo` and `sim`
//! are clients of the control API.

mod args;
mod cluster;
mod cni;
mod debug;
mod demo;
mod driver;
mod endpoint;
mod error;
mod fresh;
mod init;
mod ipam;
mod members;
mod network;
mod output;
mod plugin;
mod sim;
mod status;
mod table;
mod transitions;
mod trust;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::{
    args::{Args, Command},
    error::CliError,
    output::Output,
};
use crate::{
    api::{client::Client, http::Exit},
    config::Host,
};

/// How many threads may wait for the disk at once; what is more waits for its turn. Only one writes at a time, and each thread keeps a
/// heap of its own; but reads shall not wait behind all who would write while the disk is slow.
const BLOCKING_MAX: usize = 16;

/// Reads the arguments, does what they say, and returns what to exit with.
pub fn run() -> ExitCode {
    // A container runtime gives no arguments, which would be a person's question for help.
    if let Some(answered) = cni::answer_if_called() {
        return answered;
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(refused) => return misunderstood(&refused),
    };
    let json = args.global.json;
    let done = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_MAX)
        .enable_all()
        .build()
        .map_err(CliError::Output)
        .and_then(|runtime| runtime.block_on(dispatch(args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(report) = error.report(json) {
                output::tell(&report);
            }
            ExitCode::from(error.exit() as u8)
        }
    }
}

async fn dispatch(args: Args) -> Result<(), CliError> {
    let global = args.global;
    let output = Output::new(global.json);
    let socket = || {
        global
            .socket
            .clone()
            .unwrap_or_else(|| Host::here().socket())
    };
    let client = || Client::new(socket());
    match args.command {
        Command::Init(args) => init::run(args, &global, output).await,
        Command::Up(args) => up::run(*args, &global, output).await,
        Command::Leave { force } => status::leave(&client(), output, force).await,
        Command::Token { rotate } => status::token(&client(), output, rotate).await,
        Command::Status { check } => status::status(&client(), output, check).await,
        Command::Members { watch: true, from } => transitions::watch(&client(), output, from).await,
        Command::Members { watch: false, .. } => members::list(&client(), output).await,
        Command::Network(command) => network::run(&client(), output, command).await,
        Command::Endpoint(command) => endpoint::run(&client(), output, command).await,
        Command::Driver(command) => driver::run(&client(), output, command).await,
        Command::Plugin(command) => plugin::run(&client(), output, command).await,
        Command::Ipam(command) => ipam::run(&client(), output, command).await,
        Command::Table(command) => table::run(&client(), output, command).await,
        Command::Keys(command) => trust::keys(&client(), output, command).await,
        Command::Node(command) => trust::node(&client(), output, command).await,
        Command::Cluster(command) => cluster::run(&client(), output, command).await,
        Command::Debug(command) => debug::run(&client(), output, command).await,
        Command::Sim(args) => sim::run(args, output).await,
        Command::Demo { nodes, keep } => demo::run(output, nodes, keep).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "weft", &mut script);
            Ok(output.bytes(&script)?)
        }
    }
}

/// Tells what clap has to say: help and version on standard output, errors on standard error, as JSON if asked for.
fn misunderstood(refused: &clap::Error) -> ExitCode {
    if !refused.use_stderr() {
        let _ = refused.print();
        return ExitCode::SUCCESS;
    }
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if wants_json {
        let rendered = refused.render().to_string();
        // What follows the first blank line is for people: usage and hints.
        let message = rendered.split("\n\n").next().unwrap_or_default();
        output::tell(&error::in_json(
            "usage",
            message.trim_start_matches("error: "),
        ));
    } else {
        let _ = refused.print();
    }
    ExitCode::from(Exit::Usage as u8)
}
