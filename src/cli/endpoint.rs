//! `weft endpoint …`.

use std::net::IpAddr;

use super::{
    args::{EndpointCommand, EndpointName, SandboxArgs},
    error::CliError,
    network::told_everyone,
    output::{Listing, Output, Tone},
};
use crate::{
    api::{
        client::Client,
        http::types::{
            Blob, CreateEndpoint, Endpoint, EndpointDetail, EndpointState, JoinQuery, Lacking,
        },
    },
    core::model::{Family, Name},
};

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: EndpointCommand,
) -> Result<(), CliError> {
    let endpoint = match command {
        EndpointCommand::Create {
            network,
            name,
            address,
            join,
            sandbox,
        } => {
            if sandbox.netns.is_some() && !join {
                return Err(CliError::Usage("--netns needs --join".to_owned()));
            }
            let wish = wish(name, address)?;
            let created = client.endpoint_create(&network, &wish).await?;
            if join {
                let id = created.id.to_string();
                client
                    .endpoint_enter(&network, &id, &query(sandbox)?)
                    .await?
            } else {
                created
            }
        }
        EndpointCommand::Join {
            at: EndpointName { network, endpoint },
            sandbox,
        } => {
            let query = query(sandbox)?;
            client.endpoint_enter(&network, &endpoint, &query).await?
        }
        EndpointCommand::Leave {
            at: EndpointName { network, endpoint },
            wait,
        } => {
            let Some(limit) = wait.limit() else {
                let left = client.endpoint_leave(&network, &endpoint).await?;
                return show(&left, output);
            };
            let left = client
                .endpoint_leave_applied(&network, &endpoint, limit)
                .await?;
            output.answer(&left, |left| {
                show_endpoints(std::slice::from_ref(&left.endpoint))
            })?;
            return told_everyone(left.applied.as_ref(), limit);
        }
        EndpointCommand::Inspect(EndpointName { network, endpoint }) => {
            let detail = client.endpoint(&network, &endpoint).await?;
            output.answer(&detail, show_detail)?;
            return Ok(());
        }
        EndpointCommand::Rm(EndpointName { network, endpoint }) => {
            client.endpoint_remove(&network, &endpoint).await?;
            let removed = serde_json::json!({ "removed": endpoint, "network": network });
            output.answer(&removed, |_| format!("endpoint {endpoint} removed"))?;
            return Ok(());
        }
        EndpointCommand::Ls { network } => {
            let endpoints = client.endpoints(network.as_deref()).await?;
            output.answer(&endpoints, |endpoints| show_endpoints(endpoints))?;
            return Ok(());
        }
    };
    show(&endpoint, output)
}

/// Says where an endpoint's interface goes: a path from here is the daemon's path only once it is whole.
fn query(sandbox: SandboxArgs) -> Result<JoinQuery, CliError> {
    let netns = sandbox.netns.map(std::path::absolute).transpose()?;
    let netns = netns.map(|path| path.into_os_string().into_string());
    let no_text = |_path| CliError::Usage("the path of a namespace is no text".to_owned());
    Ok(JoinQuery {
        netns: netns.transpose().map_err(no_text)?,
        interface: sandbox.interface,
    })
}

fn show(endpoint: &Endpoint, output: Output) -> Result<(), CliError> {
    output.answer(endpoint, |endpoint| {
        show_endpoints(std::slice::from_ref(endpoint))
    })?;
    Ok(())
}

fn show_detail(detail: &EndpointDetail) -> String {
    let heading = |text: &str| Tone::Heading.paint(text);
    let mut listing = Listing::new(&["TABLE", "KEY", "OWNER", "BYTES", "SAYS"]);
    for explained in &detail.entries {
        let entry = &explained.entry;
        let says = explained.says.iter();
        let says: Vec<String> = says
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        listing.row(
            Tone::Plain,
            vec![
                entry.table.to_string(),
                shown_key(&entry.key),
                entry.owner.to_string(),
                entry.value.0.len().to_string(),
                says.join(", "),
            ],
        );
    }
    let applied = match &detail.applied {
        None => Tone::Faint.paint("only its own node can say"),
        Some(applied) if applied.applied => Tone::Good.paint("every live member"),
        Some(applied) => {
            let name = |lacking: &Lacking| match &lacking.name {
                Some(name) => name.to_string(),
                None => lacking.node.to_string(),
            };
            let names: Vec<String> = applied.lacking.iter().map(name).collect();
            Tone::Doubtful.paint(&format!("all but maybe {}", names.join(", ")))
        }
    };
    format!(
        "{}{} {}\n{} {applied}\n\n{}",
        show_endpoints(std::slice::from_ref(&detail.endpoint)),
        heading("\ndriver:"),
        detail.driver,
        heading("applied by:"),
        listing.render(),
    )
}

/// Text as it is, other bytes in hexadecimal digits, as endpoints' ids are shown.
fn shown_key(key: &Blob) -> String {
    match key.as_text() {
        Some(text) => text.to_owned(),
        None => key.0.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn wish(name: Name, addresses: Vec<IpAddr>) -> Result<CreateEndpoint, CliError> {
    let mut wanted = addresses.into_iter();
    let wish = CreateEndpoint {
        name,
        address: wanted.next(),
        second_address: wanted.next(),
    };
    let family = |wanted: Option<IpAddr>| wanted.map(Family::of);
    let is_twice = wish.address.is_some() && family(wish.address) == family(wish.second_address);
    match is_twice || wanted.next().is_some() {
        true => Err(CliError::Usage(
            "--address may be given once for IPv4 and once for IPv6".to_owned(),
        )),
        false => Ok(wish),
    }
}

fn addresses(endpoint: &Endpoint) -> String {
    let all = endpoint.address.into_iter().chain(endpoint.second_address);
    let all: Vec<String> = all.map(|address| address.to_string()).collect();
    match all.is_empty() {
        true => "-".to_owned(),
        false => all.join(" "),
    }
}

pub(super) fn show_endpoints(endpoints: &[Endpoint]) -> String {
    let mut listing = Listing::new(&["NAME", "NETWORK", "ADDRESS", "MAC", "NODE", "STATE", "ID"]);
    for endpoint in endpoints {
        let tone = match endpoint.state {
            EndpointState::Joined => Tone::Plain,
            EndpointState::Created => Tone::Faint,
        };
        let known = |name: &Option<Name>, id: String| name.as_ref().map_or(id, Name::to_string);
        listing.row(
            tone,
            vec![
                endpoint.name.to_string(),
                known(&endpoint.network_name, endpoint.network.to_string()),
                addresses(endpoint),
                endpoint.mac.to_string(),
                known(&endpoint.node_name, endpoint.node.to_string()),
                endpoint.state.as_str().to_owned(),
                endpoint.id.to_string(),
            ],
        );
    }
    listing.render()
}
