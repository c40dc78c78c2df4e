//! `weft ipam …`.

use super::{
    args::IpamCommand,
    error::CliError,
    output::{Listing, Output, Tone},
};
use crate::api::{client::Client, http::ipam::Pool};

/// From which shares in use, in percent, a subnet needs a look, and is all but full.
const FULL_FROM: [u8; 2] = [80, 100];

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: IpamCommand,
) -> Result<(), CliError> {
    match command {
        IpamCommand::Status => {
            let pools = client.ipam().await?;
            output.answer(&pools, |pools| show(pools))?;
        }
    }
    Ok(())
}

fn show(pools: &[Pool]) -> String {
    let columns = [
        "NETWORK",
        "SUBNET",
        "NODE",
        "ADDRESSES",
        "LEASED",
        "IN USE",
        "%",
    ];
    let mut listing = Listing::new(&columns);
    for pool in pools {
        let [doubtful, bad] = FULL_FROM;
        let tone = match pool.percent {
            percent if percent >= bad => Tone::Bad,
            percent if percent >= doubtful => Tone::Doubtful,
            _ => Tone::Plain,
        };
        let cells = [
            pool.name.to_string(),
            pool.subnet.to_string(),
            String::new(),
            pool.capacity.to_string(),
            pool.leased.to_string(),
            pool.in_use.to_string(),
            pool.percent.to_string(),
        ];
        listing.row(tone, cells.to_vec());
        for block in &pool.blocks {
            let node = match (&block.node_name, block.node) {
                (Some(name), _) => name.to_string(),
                (None, Some(node)) => node.to_string(),
                (None, None) => "set aside".to_owned(),
            };
            let cells = [
                String::new(),
                format!("  {}", block.prefix),
                node,
                block.capacity.to_string(),
                String::new(),
                block.in_use.to_string(),
                String::new(),
            ];
            listing.row(Tone::Faint, cells.to_vec());
        }
    }
    listing.render()
}
