//! Taking Weft's networks out of the engine: its node is no member of the cluster any more.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::{CALL_MAX, Config, EngineError, listing::Network, names::UNBORN};
use crate::plugin::{Address, Client};

/// How long it may take in all. The engine calls the plugin for each container.
const WITHDRAW_MAX: Duration = Duration::from_secs(8);

/// What disconnects a container from a network.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Disconnect<'a> {
    container: &'a str,
    force: bool,
}

/// Disconnects all containers from the networks of Weft, and removes these from the engine. The plugin must be served.
pub async fn withdraw(config: &Config) {
    let client = Client::new(Address::Unix(config.socket.clone()), CALL_MAX);
    match timeout(WITHDRAW_MAX, withdraw_with(&client, &config.driver)).await {
        Ok(Ok(())) => {}
        // Without an engine there is nothing that could be taken out.
        Ok(Err(EngineError::Call(error))) if error.is_gone() => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "the Docker engine keeps networks of a node that is no member any more");
        }
        Err(_late) => {
            tracing::warn!(
                "the Docker engine is slow to let go of networks of a node that is no member any more"
            );
        }
    }
}

async fn withdraw_with(client: &Client, driver: &str) -> Result<(), EngineError> {
    let listed: Vec<Network> = client.get("/networks").await?;
    let ours = listed.iter().filter(|network| network.is_of(driver));
    for network in ours {
        let path = format!("/networks/{}", network.id);
        let detail: Network = client.get(&path).await?;
        let left = detail.containers.iter().map(|(container, endpoint)| {
            let (client, path) = (client, format!("{path}/disconnect"));
            // One that has not come so far is listed under no id of its own, but with its name.
            let container = match container.starts_with(UNBORN) {
                true => endpoint.name.as_str(),
                false => container,
            };
            let force = true;
            async move {
                let request = Disconnect { container, force };
                client.post::<Value>(&path, &request).await
            }
        });
        for left in join_all(left).await {
            if let Err(error) = left {
                tracing::debug!(%error, "a container is not disconnected");
            }
        }
        client.delete(&path).await?;
        tracing::info!(
            network = network.name,
            "removed from the Docker engine: this node is no member any more"
        );
    }
    Ok(())
}
