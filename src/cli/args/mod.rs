//! The command line's grammar, and the help that a person reads.

mod cluster;
mod debug;
mod driver;
mod network;
mod sim;
mod table;
mod trust;
mod wait;

use std::{net::SocketAddr, path::PathBuf};

use clap::{
    ArgAction, Parser, Subcommand,
    builder::{
        PossibleValuesParser, TypedValueParser,
        styling::{AnsiColor, Styles},
    },
};

pub(super) use cluster::ClusterCommand;
pub(super) use debug::DebugCommand;
pub(super) use driver::{DriverCommand, PluginCommand};
pub(super) use network::{EndpointCommand, EndpointName, IpamCommand, NetworkCommand, SandboxArgs};
pub(super) use sim::SimArgs;
pub(super) use table::{TableCommand, TableKey};
pub(super) use trust::{KeysCommand, NodeCommand};
pub(super) use wait::Wait;

use crate::{
    api::http::pools::DefaultPool,
    config::{
        Advertise, Carrier, CertificateLife, DnsTtl, DockerMode, KeyRotation, Layer, LogFormat,
        Profile, Resolver, Secret, Seed, WireVersion,
    },
    core::{
        membership::Setting,
        model::{Label, Name},
    },
};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Over the options that every command has.
const EVERYWHERE: &str = "Options everywhere";

const ROOT_EXAMPLES: &str = "\
Examples:
  weft demo                                   see it work: three nodes on this machine
  weft up --init                              found a cluster and run its first node
  weft token                                  what a newcomer needs
  weft up --join n1.example:9338 --token …    run another node
  weft network create app                     ask the leader for a network
  weft endpoint create app web --join         attach something to it, on this node
  weft table watch app overlay_peers          see every node hear of it
  weft sim --nodes 1000 --loss 5              what a larger cluster would be like, in virtual time

Exit codes:
  0  done
  1  failed, for a reason that has no number here
  2  the command or the configuration was not understood
  3  no daemon answers at the socket
  4  a thing that was named does not exist
  5  it contradicts what is there: a name is taken, a network is in use
  6  the cluster cannot do it now: no leader, too busy, not in time

With --json the answer is one JSON value on standard output (`watch`: one a line), and a failure is \
{\"error\":{\"code\":…,\"message\":…}} on standard error.";

/// Weaves the containers of many hosts into one network
///
/// Every host runs one `weft up`. The hosts find each other by gossip, tell each other what they know of their
/// endpoints, and agree on networks through a leader that they elect.
#[derive(Debug, Parser)]
#[command(name = "weft", version, styles = STYLES, after_help = ROOT_EXAMPLES)]
#[command(
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Global {
    /// The control API's socket [default: /run/weft/weft.sock; if you are not root, $XDG_RUNTIME_DIR/weft/weft.sock]
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "WEFT_SOCKET",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub(super) socket: Option<PathBuf>,
    /// Answer in JSON, for programs
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Found a cluster: make its keys and this node's identity in the data directory
    #[command(after_help = "\
Nothing is started and nothing is sent. The first `weft up` on this data directory leads the new cluster.

Examples:
  weft init
  weft init --name n1 --data-dir /srv/weft
  weft init --default-address-pool base=10.10.0.0/16,size=24     subnets that nobody names come from there")]
    Init(InitArgs),
    /// Run this node, until it is told to stop
    #[command(after_help = "\
A node that has been part of a cluster knows the others and needs no more than `weft up`. A new one is told either \
to found a cluster (--init) or to join one (--join, --token). SIGTERM and SIGINT stop it cleanly; it stays a member and \
comes back with the next `weft up`. To take it out for good: `weft leave`.

Each option may also be set in a TOML file (--config), under its long name:
  listen = \"10.0.0.1:9338\"
  join = [\"n1.example:9338\", \"n2.example:9338\"]
  token-file = \"/etc/weft/token\"
  [membership]
  suspect-for = \"2s\"
What is on the command line goes before the environment, and that before the file.

Examples:
  weft up --init
  weft up --join n1.example:9338 --token weft-1-…
  weft up --listen 10.0.0.7:9338 --data-dir /srv/weft --log weft=debug")]
    Up(Box<UpArgs>),
    /// Leave the cluster for good; the daemon forgets it and ends
    #[command(after_help = "\
The node's endpoints are taken out of their networks, the others forget the node, and the data directory is as before \
the node's first start.")]
    Leave {
        /// Leave also if the cluster ends with this node, or cannot agree to it now
        #[arg(long)]
        force: bool,
    },
    /// Show the token with which a new node joins
    Token {
        /// Make a new one; the old one is refused from then on
        #[arg(long)]
        rotate: bool,
    },
    /// Show how this node is
    #[command(after_help = "\
Examples:
  weft status
  weft status --check     for health checks: exits 6 unless the node is ready and knows a leader,
                          5 if something of the host's Docker engine is in the way")]
    Status {
        /// Exit 6 unless the node is ready and knows a leader, 5 if something of the Docker engine is in the way
        #[arg(long)]
        check: bool,
    },
    /// List the members of the cluster, as this node sees them
    #[command(after_help = "\
RTT is the smoothed time from a probe to its ack, HEALTH how many of the last 16 probes of this node were acknowledged directly. \
Who is suspected, or held for down, is shown with whom this node has it from; `weft debug member` shows all that led there.

With --watch, the members are followed by what becomes of them, as it happens, until ctrl-C. Whoever reads too slowly is told that \
some was missed, and gets the members again.

Examples:
  weft members
  weft members --json
  weft members --watch
  weft members --watch --from 1850154996531203     go on where a watch has ended")]
    Members {
        /// Go on with what becomes of them, as it happens
        #[arg(long)]
        watch: bool,
        /// Only what follows this revision, as the watch before has told it
        #[arg(long, requires = "watch", value_name = "REVISION")]
        from: Option<u64>,
    },
    /// Create, list, inspect and remove networks
    #[command(subcommand, arg_required_else_help = true)]
    Network(NetworkCommand),
    /// Create, join, leave, inspect, remove and list endpoints
    #[command(subcommand, arg_required_else_help = true)]
    Endpoint(EndpointCommand),
    /// List and inspect the drivers of this node
    #[command(subcommand, arg_required_else_help = true)]
    Driver(DriverCommand),
    /// List and inspect the plugins of this host, which drivers may come from
    #[command(subcommand, arg_required_else_help = true)]
    Plugin(PluginCommand),
    /// Show how much of the networks' addresses is leased and in use
    #[command(subcommand, arg_required_else_help = true)]
    Ipam(IpamCommand),
    /// Read, write and watch the tables of a network
    #[command(subcommand, arg_required_else_help = true)]
    Table(TableCommand),
    /// Show and rotate the keys that datagrams are sealed with
    #[command(subcommand, arg_required_else_help = true)]
    Keys(KeysCommand),
    /// Show who votes, and recover a cluster that lost most of its voters
    #[command(subcommand, arg_required_else_help = true)]
    Cluster(ClusterCommand),
    /// Label this node, and remove other nodes from the cluster
    #[command(subcommand, arg_required_else_help = true)]
    Node(NodeCommand),
    /// Look inside this node, when something is not as it should be
    #[command(subcommand, arg_required_else_help = true)]
    Debug(DebugCommand),
    /// Write a completion script for a shell
    #[command(after_help = "\
Examples:
  weft completion bash > /etc/bash_completion.d/weft
  weft completion zsh > ~/.zfunc/_weft
  weft completion fish > ~/.config/fish/completions/weft.fish")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Simulate a cluster: how long changes take to all nodes, and what they cost
    #[command(after_help = sim::EXAMPLES)]
    Sim(SimArgs),
    /// Start a cluster on this machine and tell its story, with times
    #[command(after_help = "\
Needs no root and leaves nothing behind. Every step is observed through the control API of nodes other than the \
one that acts. With --json, one object a line: {\"step\":…,\"ok\":…,\"ms\":…}.

Examples:
  weft demo
  weft demo --nodes 5
  weft demo --keep        leave it running, to try the other commands on it")]
    Demo {
        /// How many nodes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=15))]
        nodes: u8,
        /// Leave the cluster running, and say how to talk to it
        #[arg(long)]
        keep: bool,
    },
}

/// What founding and running have in common.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlaceArgs {
    /// The node's name, unique in the cluster [default: the host's]
    #[arg(long, env = "WEFT_NAME", hide_env_values = true)]
    pub(super) name: Option<Name>,
    /// Where the node keeps its state [default: /var/lib/weft; if you are not root, ~/.local/state/weft]
    #[arg(
        long,
        env = "WEFT_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub(super) data_dir: Option<PathBuf>,
    /// A file with the join token: a founder writes it, a newcomer waits for it and reads it
    #[arg(
        long,
        env = "WEFT_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(super) token_file: Option<PathBuf>,
    /// Read settings from a TOML file
    #[arg(long, env = "WEFT_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// A default pool of the cluster and the length of its subnets' prefixes; may be given more than once. See `weft ipam pools`
    #[arg(long, value_name = "base=PREFIX,size=LENGTH[,space=local]")]
    pub(super) default_address_pool: Vec<DefaultPool>,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct UpArgs {
    /// Found a cluster first, if this data directory is not part of one
    #[arg(long, conflicts_with = "join")]
    pub(super) init: bool,
    /// Join through this member, if this data directory is not part of a cluster; may be given more than once
    #[arg(long, env = "WEFT_JOIN", hide_env_values = true, value_name = "HOST:PORT", value_delimiter = ',', action = ArgAction::Append)]
    pub(super) join: Vec<Seed>,
    /// The token that `weft token` shows on a member
    #[arg(long, env = "WEFT_TOKEN", hide_env_values = true, value_parser = secret, conflicts_with = "token_file")]
    pub(super) token: Option<Secret>,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// Where to listen, UDP and TCP; port 0 takes a free one [default: 0.0.0.0:9338]
    #[arg(
        long,
        env = "WEFT_LISTEN",
        hide_env_values = true,
        value_name = "IP:PORT"
    )]
    pub(super) listen: Option<SocketAddr>,
    /// Say something of this node, for people and for who places things; may be given several times. See `weft node label`
    #[arg(long, env = "WEFT_LABEL", hide_env_values = true, value_name = "KEY=VALUE", value_delimiter = ',', action = ArgAction::Append)]
    pub(super) label: Vec<Label>,
    /// Where others reach this node, if not where it listens
    #[arg(
        long,
        env = "WEFT_ADVERTISE",
        hide_env_values = true,
        value_name = "IP[:PORT]"
    )]
    pub(super) advertise: Option<Advertise>,
    /// Answer DNS queries here, UDP and TCP: for ENDPOINT.NETWORK and for containers' names alone [default: off]
    #[arg(long, env = "WEFT_DNS", hide_env_values = true, value_name = "IP:PORT")]
    pub(super) dns: Option<SocketAddr>,
    /// Who answers for all other names; may be given several times [default: the nameservers of /etc/resolv.conf]
    #[arg(
        long,
        env = "WEFT_DNS_UPSTREAM",
        hide_env_values = true,
        value_name = "IP[:PORT]",
        value_delimiter = ',',
        action = ArgAction::Append
    )]
    pub(super) dns_upstream: Vec<Resolver>,
    /// For how long a resolver may keep an answer for a name of a container, 0s to 1h [default: 5s]
    #[arg(
        long,
        env = "WEFT_DNS_TTL",
        hide_env_values = true,
        value_name = "TIME"
    )]
    pub(super) dns_ttl: Option<DnsTtl>,
    /// Serve the Docker engine of this host: its networks follow Weft's, its containers are endpoints; auto: if there is one
    /// and this is root [default: auto]
    #[arg(long, env = "WEFT_DOCKER", hide_env_values = true, value_parser = docker())]
    pub(super) docker: Option<DockerMode>,
    /// The Docker engine's plugin socket; the engine calls the driver by its name [default: /run/docker/plugins/weft.sock]
    #[arg(
        long,
        env = "WEFT_DOCKER_PLUGIN",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub(super) docker_plugin: Option<PathBuf>,
    /// The Docker engine's own socket [default: /var/run/docker.sock]
    #[arg(
        long,
        env = "WEFT_DOCKER_ENGINE",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub(super) docker_engine: Option<PathBuf>,
    /// What carries the packets of overlay networks: the kernel, which needs root, or nothing
    /// [default: the kernel where it can, else nothing, and the log says why]
    #[arg(long, env = "WEFT_DATAPLANE", hide_env_values = true, value_parser = carrier())]
    pub(super) dataplane: Option<Carrier>,
    /// How long a certificate lives that this node signs as the leader, 5s to 3650d; nodes renew theirs after two thirds of it
    /// [default: 90d]
    #[arg(
        long,
        env = "WEFT_CERTIFICATE_LIFE",
        hide_env_values = true,
        value_name = "TIME"
    )]
    pub(super) certificate_life: Option<CertificateLife>,
    /// How often this node rotates the datagram keys while it leads, 5s to 365d [default: 12h]
    #[arg(
        long,
        env = "WEFT_KEY_ROTATION",
        hide_env_values = true,
        value_name = "TIME"
    )]
    pub(super) key_rotation: Option<KeyRotation>,
    /// The newest version of the wire that this node speaks, 1 or 2: two nodes speak the highest that both do. Only of use to go
    /// back to a program that speaks no newer one [default: 2]
    #[arg(
        long,
        env = "WEFT_WIRE_VERSION",
        hide_env_values = true,
        value_name = "N"
    )]
    pub(super) wire_version: Option<WireVersion>,
    /// Where driver plugins are looked for, NAME.sock, NAME.spec or NAME.json, in place of Docker's own directories and of
    /// what its engine manages [default: where Docker looks]
    #[arg(
        long,
        env = "WEFT_PLUGIN_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub(super) plugin_dir: Option<PathBuf>,
    /// How patient to be with silent members [default: lan]
    #[arg(long, env = "WEFT_PROFILE", hide_env_values = true, value_parser = profile())]
    pub(super) profile: Option<Profile>,
    /// Figures of membership in place of the profile's, for example probe-period=500ms,suspect-for=600ms; may be given several
    /// times. `weft debug membership` shows them all, with their bounds
    #[arg(long, env = "WEFT_MEMBERSHIP", hide_env_values = true, value_name = "FIGURE=VALUE", value_delimiter = ',', action = ArgAction::Append)]
    pub(super) membership: Vec<Setting>,
    /// What to log: a level, or `target=level` pairs parted by commas [default: info]
    #[arg(long, env = "WEFT_LOG", hide_env_values = true, value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// How to write the log [default: text]
    #[arg(long, env = "WEFT_LOG_FORMAT", hide_env_values = true, value_parser = log_format())]
    pub(super) log_format: Option<LogFormat>,
}

// It cannot fail, but clap wants a result.
#[expect(
    clippy::unnecessary_wraps,
    reason = "clap's value parsers return a result"
)]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret(text.to_owned()))
}

fn profile() -> impl TypedValueParser<Value = Profile> {
    PossibleValuesParser::new(["lan", "wan", "local"]).try_map(|word| word.parse::<Profile>())
}

fn docker() -> impl TypedValueParser<Value = DockerMode> {
    PossibleValuesParser::new(["auto", "on", "off"]).try_map(|word| word.parse::<DockerMode>())
}

fn carrier() -> impl TypedValueParser<Value = Carrier> {
    PossibleValuesParser::new(["kernel", "none"]).try_map(|word| word.parse::<Carrier>())
}

fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(["text", "json"]).try_map(|word| word.parse::<LogFormat>())
}

impl PlaceArgs {
    /// Returns what flags and environment say.
    pub(super) fn layer(self, global: &Global) -> Layer {
        Layer {
            name: self.name,
            data_dir: self.data_dir,
            token_file: self.token_file,
            socket: global.socket.clone(),
            ..Layer::default()
        }
    }
}

impl UpArgs {
    /// Returns what flags and environment say.
    pub(super) fn layer(self, global: &Global) -> Layer {
        Layer {
            listen: self.listen,
            label: Some(self.label).filter(|label| !label.is_empty()),
            advertise: self.advertise,
            join: Some(self.join).filter(|join| !join.is_empty()),
            token: self.token,
            log: self.log,
            log_format: self.log_format,
            profile: self.profile,
            membership: Some(self.membership)
                .filter(|set| !set.is_empty())
                .map(|set| set.into_iter().collect()),
            dns: self.dns,
            dns_upstream: Some(self.dns_upstream).filter(|all| !all.is_empty()),
            dns_ttl: self.dns_ttl,
            docker: self.docker,
            docker_plugin: self.docker_plugin,
            docker_engine: self.docker_engine,
            dataplane: self.dataplane,
            certificate_life: self.certificate_life,
            key_rotation: self.key_rotation,
            wire_version: self.wire_version,
            plugin_dir: self.plugin_dir,
            ..self.place.layer(global)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;
    use crate::config::Figures;

    fn up(args: &[&str]) -> Layer {
        let words = ["weft", "up"].iter().chain(args);
        let args = Args::try_parse_from(words).unwrap();
        let Command::Up(up) = args.command else {
            panic!("not up");
        };
        up.layer(&args.global)
    }

    #[test]
    fn the_grammar_has_no_contradictions() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn silent(command: &clap::Command, path: &str) -> Vec<String> {
            let path = format!("{path} {}", command.get_name());
            let mut found: Vec<String> = command
                .get_subcommands()
                .flat_map(|inner| silent(inner, &path))
                .collect();
            if command.get_about().is_none() {
                found.push(path.clone());
            }
            let arguments = command.get_arguments();
            found.extend(
                arguments
                    .filter(|argument| argument.get_help().is_none())
                    .map(|argument| format!("{path} {}", argument.get_id())),
            );
            found
        }

        assert_eq!(silent(&Args::command(), ""), Vec::<String>::new());
    }

    #[test]
    fn each_setting_of_up_has_its_variable() {
        let command = Args::command();
        let up = command.find_subcommand("up").unwrap();

        let variables: BTreeMap<String, String> = up
            .get_arguments()
            .filter_map(|argument| {
                let variable = argument.get_env()?.to_str()?.to_owned();
                Some((argument.get_id().to_string(), variable))
            })
            .collect();

        for (setting, variable) in &variables {
            assert_eq!(*variable, format!("WEFT_{}", setting.to_uppercase()));
        }
        assert_eq!(variables.len(), 24, "{variables:?}");
    }

    #[test]
    fn flags_become_a_layer() {
        let layer = up(&[
            "--join",
            "a:1,b",
            "--join",
            "c",
            "--token",
            "t",
            "--listen",
            "127.0.0.1:0",
            "--advertise",
            "10.0.0.1",
            "--name",
            "n1",
            "--data-dir",
            "/d",
            "--socket",
            "/s",
            "--log",
            "debug",
            "--log-format",
            "json",
            "--profile",
            "local",
            "--membership",
            "probe-period=500ms,copies=2",
            "--membership",
            "copies=3",
            "--label",
            "zone=a,rack=7",
        ]);

        assert_eq!(layer.join.unwrap().len(), 3);
        assert_eq!(layer.label.unwrap().len(), 2);
        assert_eq!(layer.token, Some(Secret("t".to_owned())));
        assert_eq!(layer.socket, Some("/s".into()));
        assert_eq!(layer.log_format, Some(LogFormat::Json));
        assert_eq!(layer.profile, Some(Profile::Local));
        let figures = ["probe-period=500ms", "copies=3"].map(|set| set.parse::<Setting>());
        let figures: Result<Figures, _> = figures.into_iter().collect();
        assert_eq!(layer.membership, figures.ok());
    }

    #[test]
    fn founding_and_joining_contradict_each_other() {
        assert!(Args::try_parse_from(["weft", "up", "--init", "--join", "a:1"]).is_err());
    }
}
