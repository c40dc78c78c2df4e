//! `weft cluster`: who votes, who signs, and the last resort when most voters are lost.

mod authority;
mod recover;
mod voters;

pub(super) use voters::waits;

use super::{args::ClusterCommand, error::CliError, output::Output};
use crate::api::client::Client;

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: ClusterCommand,
) -> Result<(), CliError> {
    match command {
        ClusterCommand::Voters => voters::run(client, output).await,
        ClusterCommand::Authority => authority::show(client, output).await,
        ClusterCommand::RotateCa { now } => authority::rotate(client, output, now).await,
        ClusterCommand::Recover {
            data_dir,
            keep,
            yes,
        } => recover::run(data_dir, &keep, yes, output).await,
    }
}
