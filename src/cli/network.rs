//! `weft network …`.

use std::net::IpAddr;

use super::{
    args::NetworkCommand,
    endpoint::show_endpoints,
    error::CliError,
    output::{Listing, Output, Tone},
};
use crate::{
    api::{
        client::Client,
        http::types::{CreateNetwork, CreateSubnet, Network, NetworkDetail, Setup},
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
            options,
        } => {
            let wish = CreateNetwork {
                name,
                driver,
                options: options.into_iter().collect(),
                subnets: with_gateways(&subnets, &gateways)?,
            };
            let network = client.network_create(&wish).await?;
            output.answer(&network, |network| {
                show_networks(std::slice::from_ref(network))
            })?;
        }
        NetworkCommand::Ls => {
            let networks = client.networks().await?;
            output.answer(&networks, |networks| show_networks(networks))?;
        }
        NetworkCommand::Inspect { network } => {
            let detail = client.network(&network).await?;
            output.answer(&detail, show_detail)?;
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

/// Gives each gateway to the subnet that it lies in.
fn with_gateways(subnets: &[Prefix], gateways: &[IpAddr]) -> Result<Vec<CreateSubnet>, CliError> {
    let mut wishes: Vec<CreateSubnet> = subnets
        .iter()
        .map(|prefix| CreateSubnet {
            prefix: Some(*prefix),
            gateway: None,
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

pub(super) fn show_networks(networks: &[Network]) -> String {
    let mut listing = Listing::new(&["ID", "NAME", "DRIVER", "SUBNET", "GATEWAY", "VNI"]);
    for network in networks {
        let each = |show: fn(&Subnet) -> String| {
            let shown: Vec<String> = network.subnets.iter().map(show).collect();
            if shown.is_empty() {
                "-".to_owned()
            } else {
                shown.join(",")
            }
        };
        listing.row(
            Tone::Plain,
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
            ],
        );
    }
    listing.render()
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
    let options: String = detail
        .network
        .options
        .iter()
        .map(|(name, value)| format!("  {name} = {value}\n"))
        .collect();
    let driver = serde_json::to_string_pretty(&detail.driver_state)
        .expect("a JSON value can be written as JSON");
    let heading = |text: &str| Tone::Heading.paint(text);
    format!(
        "{}\n{} {setup}\n{options}\n{}\n{}\n{driver}\n",
        show_networks(std::slice::from_ref(&detail.network)).trim_end(),
        heading("on this node:"),
        show_endpoints(&detail.endpoints).trim_end(),
        heading("\ndriver:"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::{Name, NetworkId};

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
        let network = Network {
            id: NetworkId(1),
            name: Name::new("app").unwrap(),
            driver: Name::new("overlay").unwrap(),
            options: Default::default(),
            subnets: vec![Subnet {
                prefix: Prefix("10.0.0.0/24".parse().unwrap()),
                gateway: "10.0.0.1".parse().unwrap(),
                vni: Vni::new(4096),
            }],
        };

        let shown = show_networks(&[network]);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        ID  NAME  DRIVER   SUBNET       GATEWAY   VNI
        1   app   overlay  10.0.0.0/24  10.0.0.1  4096
        ");
    }
}
