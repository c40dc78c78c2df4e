//! `weft ipam …`.

use super::{
    args::IpamCommand,
    error::CliError,
    fresh,
    output::{Listing, Output, Tone},
};
use crate::api::{
    client::Client,
    http::{
        ipam::Pool,
        pools::{PoolInUse, SetPools},
    },
};

/// From which share in use, in percent, a subnet is all but full.
const FULL_FROM: u8 = 100;

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: IpamCommand,
) -> Result<(), CliError> {
    match command {
        IpamCommand::Status { confirmed } => {
            fresh::ensure(client, output, confirmed).await?;
            let pools = client.ipam().await?;
            output.answer(&pools, |pools| show(pools))?;
        }
        IpamCommand::Pools {
            set,
            reset,
            confirmed,
        } => {
            if reset || !set.is_empty() {
                client.set_default_pools(&SetPools { pools: set }).await?;
                return Ok(
                    output.say("the default pools are set; subnets that networks have stay")?
                );
            }
            fresh::ensure(client, output, confirmed).await?;
            let pools = client.default_pools().await?;
            output.answer(&pools, |pools| show_pools(pools))?;
        }
    }
    Ok(())
}

fn show_pools(pools: &[PoolInUse]) -> String {
    let mut listing = Listing::new(&["SPACE", "POOL", "SIZE", "SUBNETS", "IN USE", "FROM"]);
    for pool in pools {
        let (tone, from) = match pool.configured {
            true => (Tone::Plain, "configured"),
            false => (Tone::Faint, "built in"),
        };
        let cells = [
            pool.space.to_string(),
            pool.base.to_string(),
            format!("/{}", pool.size),
            pool.subnets.to_string(),
            pool.in_use.to_string(),
            from.to_owned(),
        ];
        listing.row(tone, cells.to_vec());
    }
    listing.render()
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
        "STATE",
    ];
    let mut listing = Listing::new(&columns);
    for pool in pools {
        let (tone, state) = match pool.percent {
            FULL_FROM.. => (Tone::Bad, "full"),
            _ if pool.low => (Tone::Doubtful, "low"),
            _ => (Tone::Plain, "ok"),
        };
        let cells = [
            pool.name.to_string(),
            pool.subnet.to_string(),
            String::new(),
            pool.capacity.to_string(),
            pool.leased.to_string(),
            pool.in_use.to_string(),
            pool.percent.to_string(),
            state.to_owned(),
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
                String::new(),
            ];
            listing.row(Tone::Faint, cells.to_vec());
        }
    }
    listing.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::{Name, NetworkId, Prefix};

    #[test]
    fn a_subnet_that_runs_low_or_is_full_says_so() {
        let pool = |third: u8, percent: u8| Pool {
            network: NetworkId(1),
            name: Name::new("app").unwrap(),
            subnet: Prefix(format!("10.0.{third}.0/25").parse().unwrap()),
            capacity: 100,
            leased: 100,
            in_use: percent.into(),
            percent,
            low: percent >= 80,
            blocks: Vec::new(),
        };

        let shown = show(&[pool(0, 79), pool(1, 80), pool(2, 100)]);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        NETWORK  SUBNET       NODE  ADDRESSES  LEASED  IN USE  %    STATE
        app      10.0.0.0/25        100        100     79      79   ok
        app      10.0.1.0/25        100        100     80      80   low
        app      10.0.2.0/25        100        100     100     100  full
        ");
    }
}
