//! `weft network …`.

use std::{net::IpAddr, time::Duration};

use super::{
    args::NetworkCommand,
    endpoint::show_endpoints,
    error::CliError,
    fresh,
    output::{Listing, Output, Tone},
};
use crate::{
    api::{
        client::Client,
        http::types::{
            Applied, Code, CreateIpam, CreateNetwork, CreateSubnet, Failure, Lacking,
            ListedNetwork, Network, NetworkDetail, Setup, SyncState,
        },
    },
    core::model::{Prefix, Subnet, Vni},
};

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: NetworkCommand,
) -> Result<(), CliError> {
    match command {
        NetworkCommand::Create {
            name,
            driver,
            subnets,
            gateways,
            ranges,
            reserved,
            ipv6,
            options: driver_options,
            ipam_driver,
            ipam_options,
        } => {
            let subnets = wished((&subnets, &gateways), &ranges, &reserved)?;
            let options = ipam_options.into_iter().collect();
            let wish = CreateNetwork {
                name,
                driver,
                options: driver_options.into_iter().collect(),
                subnets,
                ipam: ipam_driver.map(|driver| CreateIpam { driver, options }),
                ipv6,
            };
            let network = client.network_create(&wish).await?;
            output.answer(&network, show_network)?;
        }
        NetworkCommand::Ls { confirmed } => {
            fresh::ensure(client, output, confirmed).await?;
            let networks = client.network_states().await?;
            output.answer(&networks, |networks| show_listed(networks))?;
        }
        NetworkCommand::Inspect {
            network,
            wait: false,
            ..
        } => {
            let detail = client.network(&network).await?;
            output.answer(&detail, show_detail)?;
        }
        NetworkCommand::Inspect {
            network,
            wait: true,
            timeout,
        } => {
            let detail = client.network_until_synced(&network, timeout).await?;
            output.answer(&detail, show_detail)?;
            return usable(&detail, timeout);
        }
        NetworkCommand::Applied { network, timeout } => {
            let applied = client.applied(&network, timeout).await?;
            if applied.applied {
                output.answer(&applied, |applied| {
                    let seq = applied.version.seq;
                    format!("every live member has all that this node has written: {seq} writes")
                })?;
            } else if output.is_json() {
                output.answer(&applied, |_| String::new())?;
            }
            return told_everyone(Some(&applied), timeout);
        }
        NetworkCommand::Rm { network } => {
            client.network_remove(&network).await?;
            output.answer(&serde_json::json!({ "removed": network }), |_| {
                format!("network {network} removed")
            })?;
        }
    }
    Ok(())
}

/// Refuses if somebody may not have heard of what this node has written. That stands all the same.
pub(super) fn told_everyone(applied: Option<&Applied>, limit: Duration) -> Result<(), CliError> {
    let lacking = applied.map_or(&[][..], |applied| &applied.lacking);
    if lacking.is_empty() {
        return Ok(());
    }
    let name = |lacking: &Lacking| match &lacking.name {
        Some(name) => name.to_string(),
        None => lacking.node.to_string(),
    };
    let names: Vec<String> = lacking.iter().map(name).collect();
    let message = format!(
        "it is done, but after {limit:?} these may not have heard of it: {}",
        names.join(", ")
    );
    Err(Failure::new(Code::TimedOut, message).into())
}

/// Refuses a network that is not set up here, or lacks entries.
fn usable(detail: &NetworkDetail, limit: Duration) -> Result<(), CliError> {
    let sync = detail.sync.map_or("not attached", SyncState::as_str);
    if detail.setup == Setup::Ready && detail.sync == Some(SyncState::Synced) {
        return Ok(());
    }
    let message = format!(
        "network {} is {} and {sync} on this node after {limit:?}",
        detail.network.name,
        detail.setup.as_str(),
    );
    Err(Failure::new(Code::NotReady, message).into())
}

/// Returns the subnets that are wanted, each with what lies in it.
fn wished(
    (subnets, gateways): (&[Prefix], &[IpAddr]),
    ranges: &[Prefix],
    reserved: &[IpAddr],
) -> Result<Vec<CreateSubnet>, CliError> {
    let mut wishes = with_gateways(subnets, gateways)?;
    add_ranges(&mut wishes, ranges)?;
    add_reserved(&mut wishes, reserved)?;
    Ok(wishes)
}

/// Gives each gateway to the subnet that it lies in.
fn with_gateways(subnets: &[Prefix], gateways: &[IpAddr]) -> Result<Vec<CreateSubnet>, CliError> {
    let mut wishes: Vec<CreateSubnet> = subnets
        .iter()
        .map(|prefix| CreateSubnet {
            prefix: Some(*prefix),
            ..CreateSubnet::default()
        })
        .collect();
    for gateway in gateways {
        let lies_in =
            |wish: &&mut CreateSubnet| wish.prefix.is_some_and(|prefix| prefix.0.contains(gateway));
        let Some(wish) = wishes.iter_mut().find(lies_in) else {
            return Err(CliError::Usage(format!(
                "gateway {gateway} lies in none of the subnets"
            )));
        };
        if let Some(first) = wish.gateway.replace(*gateway) {
            return Err(CliError::Usage(format!(
                "gateways {first} and {gateway} lie in the same subnet"
            )));
        }
    }
    Ok(wishes)
}

fn add_ranges(subnets: &mut [CreateSubnet], ranges: &[Prefix]) -> Result<(), CliError> {
    for range in ranges {
        let lies_in = |wish: &&mut CreateSubnet| {
            wish.prefix
                .is_some_and(|prefix| prefix.0.contains(&range.0))
        };
        let Some(wish) = subnets.iter_mut().find(lies_in) else {
            return Err(CliError::Usage(format!(
                "range {range} lies in none of the subnets"
            )));
        };
        if let Some(first) = wish.range.replace(*range) {
            return Err(CliError::Usage(format!(
                "ranges {first} and {range} lie in the same subnet"
            )));
        }
    }
    Ok(())
}

fn add_reserved(subnets: &mut [CreateSubnet], reserved: &[IpAddr]) -> Result<(), CliError> {
    for address in reserved {
        let lies_in =
            |wish: &&mut CreateSubnet| wish.prefix.is_some_and(|prefix| prefix.0.contains(address));
        let Some(wish) = subnets.iter_mut().find(lies_in) else {
            return Err(CliError::Usage(format!(
                "auxiliary address {address} lies in none of the subnets"
            )));
        };
        wish.reserved.push(*address);
    }
    Ok(())
}

/// What a table of networks shows of each, as the leader agreed it.
const COLUMNS: [&str; 6] = ["ID", "NAME", "DRIVER", "SUBNET", "GATEWAY", "VNI"];

fn show_network(network: &Network) -> String {
    let mut listing = Listing::new(&COLUMNS);
    listing.row(Tone::Plain, cells(network));
    listing.render()
}

fn show_listed(networks: &[ListedNetwork]) -> String {
    let mut listing = Listing::new(&[&COLUMNS[..], &["SETUP", "SYNC"]].concat());
    for listed in networks {
        let (tone, sync) = match listed.sync {
            Some(SyncState::Synced) => (Tone::Plain, SyncState::Synced.as_str()),
            Some(SyncState::Syncing) => (Tone::Doubtful, SyncState::Syncing.as_str()),
            Some(SyncState::Degraded) => (Tone::Bad, SyncState::Degraded.as_str()),
            None => (Tone::Doubtful, "-"),
        };
        let mut cells = cells(&listed.network);
        cells.extend([listed.setup.as_str().to_owned(), sync.to_owned()]);
        listing.row(tone, cells);
    }
    listing.render()
}

fn cells(network: &Network) -> Vec<String> {
    let each = |show: fn(&Subnet) -> String| {
        let shown: Vec<String> = network.subnets.iter().map(show).collect();
        if shown.is_empty() {
            "-".to_owned()
        } else {
            shown.join(",")
        }
    };
    vec![
        network.id.to_string(),
        network.name.to_string(),
        network.driver.to_string(),
        each(|subnet| subnet.prefix.to_string()),
        each(|subnet| subnet.gateway.to_string()),
        each(|subnet| {
            subnet
                .vni
                .map_or_else(|| "-".to_owned(), |vni: Vni| vni.to_string())
        }),
    ]
}

fn show_detail(detail: &NetworkDetail) -> String {
    let setup = match &detail.setup {
        Setup::Ready => Tone::Good.paint("ready"),
        Setup::Pending { reason: None } => Tone::Doubtful.paint("pending"),
        Setup::Pending {
            reason: Some(reason),
        } => Tone::Bad.paint(&format!("pending: {reason}")),
        Setup::Removing => Tone::Doubtful.paint("removing"),
    };
    let sync = match detail.sync {
        Some(SyncState::Synced) => Tone::Good.paint("synced"),
        Some(SyncState::Syncing) => Tone::Doubtful.paint("syncing: what is shown may not be all"),
        Some(SyncState::Degraded) => {
            Tone::Bad.paint("degraded: a member does not answer, so what is shown may not be all")
        }
        None => Tone::Doubtful.paint("not attached"),
    };
    let options: String = detail
        .network
        .options
        .iter()
        .map(|(name, value)| format!("  {name} = {value}\n"))
        .collect();
    let driver = serde_json::to_string_pretty(&detail.driver_state)
        .expect("a JSON value can be written as JSON");
    let heading = |text: &str| Tone::Heading.paint(text);
    let engine = match &detail.engine_problem {
        Some(problem) => format!("{} {}\n", heading("Docker:"), Tone::Bad.paint(problem)),
        None => String::new(),
    };
    format!(
        "{}\n{} {setup}, {sync}\n{engine}{options}\n{}\n{}\n{driver}\n",
        show_network(&detail.network).trim_end(),
        heading("on this node:"),
        show_endpoints(&detail.endpoints).trim_end(),
        heading("\ndriver:"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::http::types::Version,
        core::model::{Generation, Name, NetworkId, NodeId},
    };

    #[test]
    fn a_gateway_goes_to_its_subnet() {
        let subnets = ["10.1.0.0/16", "fd00::/64"].map(|text| Prefix(text.parse().unwrap()));
        let gateways = ["fd00::9", "10.1.0.5"].map(|text| text.parse().unwrap());

        let wishes = with_gateways(&subnets, &gateways).unwrap();

        assert_eq!(wishes[0].gateway, Some(gateways[1]));
        assert_eq!(wishes[1].gateway, Some(gateways[0]));
    }

    #[test]
    fn a_gateway_outside_or_a_second_one_is_refused() {
        let subnets = [Prefix("10.1.0.0/16".parse().unwrap())];
        let refused = |gateways: &[&str]| {
            let gateways: Vec<IpAddr> = gateways.iter().map(|text| text.parse().unwrap()).collect();
            with_gateways(&subnets, &gateways).unwrap_err().to_string()
        };

        assert_eq!(
            refused(&["10.2.0.1"]),
            "gateway 10.2.0.1 lies in none of the subnets"
        );
        assert_eq!(
            refused(&["10.1.0.1", "10.1.0.2"]),
            "gateways 10.1.0.1 and 10.1.0.2 lie in the same subnet"
        );
    }

    #[test]
    fn the_networks_table_has_ids_subnets_and_vnis() {
        let network = network();

        let shown = show_network(&network);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        ID  NAME  DRIVER   SUBNET       GATEWAY   VNI
        1   app   overlay  10.0.0.0/24  10.0.0.1  4096
        ");
    }

    #[test]
    fn a_list_of_networks_has_how_far_each_has_come_here() {
        let listed = |setup, sync| ListedNetwork {
            network: network(),
            setup,
            sync,
        };
        let networks = [
            listed(Setup::Ready, Some(SyncState::Synced)),
            listed(Setup::Ready, Some(SyncState::Degraded)),
            listed(Setup::Pending { reason: None }, None),
        ];

        let shown = show_listed(&networks);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        ID  NAME  DRIVER   SUBNET       GATEWAY   VNI   SETUP    SYNC
        1   app   overlay  10.0.0.0/24  10.0.0.1  4096  ready    synced
        1   app   overlay  10.0.0.0/24  10.0.0.1  4096  ready    degraded
        1   app   overlay  10.0.0.0/24  10.0.0.1  4096  pending  -
        ");
    }

    #[test]
    fn who_may_not_have_heard_is_named_and_that_is_unavailable() {
        let applied = |lacking: Vec<Lacking>| Applied {
            network: NetworkId(1),
            version: Version {
                generation: Generation(1),
                epoch: 2,
                seq: 3,
            },
            applied: lacking.is_empty(),
            lacking,
        };
        let lacking = |node, name: Option<&str>| Lacking {
            node: NodeId(node),
            name: name.map(|name| Name::new(name).unwrap()),
        };
        let limit = Duration::from_millis(500);

        assert!(told_everyone(Some(&applied(vec![])), limit).is_ok());
        let some = applied(vec![lacking(1, Some("n1")), lacking(2, None)]);
        let refused = told_everyone(Some(&some), limit).unwrap_err();

        assert_eq!(refused.exit() as u8, 6);
        assert_eq!(
            refused.to_string(),
            "it is done, but after 500ms these may not have heard of it: n1, 0000000000000002"
        );
    }

    fn network() -> Network {
        Network {
            id: NetworkId(1),
            name: Name::new("app").unwrap(),
            driver: Name::new("overlay").unwrap(),
            options: Default::default(),
            subnets: vec![Subnet {
                prefix: Prefix("10.0.0.0/24".parse().unwrap()),
                gateway: "10.0.0.1".parse().unwrap(),
                vni: Vni::new(4096),
            }],
        }
    }
}
