//! Weft as the engine's IPAM driver: pools are subnets of Weft's networks, addresses come from this node's blocks.

use std::collections::BTreeMap;

use axum::{Router, body::Bytes, extract::State, routing::post};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Desk,
    call::{Answer, Done, Refusal, address, or_default, read},
    pool::{ADDRESS_SPACE, PoolId, gateway, named, subnet_of},
};
use crate::core::model::{Family, Prefix};

/// The option that says what an address is for, and what it says of a gateway's.
const PURPOSE: (&str, &str) = ("RequestAddressType", "com.docker.network.gateway");

#[derive(Serialize)]
struct Capabilities {
    #[serde(rename = "RequiresMACAddress")]
    requires_mac_address: bool,
    #[serde(rename = "RequiresRequestReplay")]
    requires_request_replay: bool,
}

impl Capabilities {
    /// Addresses do not follow from MACs, and what was handed out is kept on disk, so nothing has to be asked again.
    const OURS: Self = Self {
        requires_mac_address: false,
        requires_request_replay: false,
    };
}

#[derive(Serialize)]
struct AddressSpaces {
    #[serde(rename = "LocalDefaultAddressSpace")]
    local: &'static str,
    #[serde(rename = "GlobalDefaultAddressSpace")]
    global: &'static str,
}

impl AddressSpaces {
    /// Two names, or the engine could not tell a pool of one from a pool of the other.
    const OURS: Self = Self {
        local: ADDRESS_SPACE,
        global: "weft",
    };
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RequestPool {
    #[serde(default)]
    pool: String,
    #[serde(default)]
    sub_pool: String,
    #[serde(default, deserialize_with = "or_default")]
    options: BTreeMap<String, String>,
    #[serde(default)]
    v6: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pool {
    #[serde(rename = "PoolID")]
    pool_id: String,
    pool: Prefix,
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RequestAddress {
    #[serde(rename = "PoolID")]
    pool_id: String,
    #[serde(default)]
    address: String,
    #[serde(default, deserialize_with = "or_default")]
    options: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    address: Prefix,
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReleaseAddress {
    #[serde(rename = "PoolID")]
    pool_id: String,
    #[serde(default)]
    address: String,
}

pub(super) fn introduction<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(
            "/IpamDriver.GetCapabilities",
            post(async || Answer(Capabilities::OURS)),
        )
        .route(
            "/IpamDriver.GetDefaultAddressSpaces",
            post(async || Answer(AddressSpaces::OURS)),
        )
}

pub(super) fn router() -> Router<Desk> {
    Router::new()
        .route("/IpamDriver.RequestPool", post(request_pool))
        .route("/IpamDriver.ReleasePool", post(async || Answer(Done {})))
        .route("/IpamDriver.RequestAddress", post(request_address))
        .route("/IpamDriver.ReleaseAddress", post(release_address))
}

async fn request_pool(State(desk): State<Desk>, body: Bytes) -> Result<Answer<Pool>, Refusal> {
    let request: RequestPool = read(&body)?;
    let network = named(&desk.controller, &request.options).await?;
    let family = if request.v6 { Family::V6 } else { Family::V4 };
    let prefix = subnet_of(&network, family, &request.pool)?.prefix;
    let range = request.sub_pool;
    if !range.is_empty() && range.parse::<IpNet>().ok() != Some(prefix.0) {
        return Err(Refusal::IpRange(range));
    }
    let pool = PoolId {
        network: network.id,
        prefix,
    };
    Ok(Answer(Pool {
        pool_id: pool.to_string(),
        pool: prefix,
        data: BTreeMap::new(),
    }))
}

async fn request_address(
    State(desk): State<Desk>,
    body: Bytes,
) -> Result<Answer<Address>, Refusal> {
    let request: RequestAddress = read(&body)?;
    let pool: PoolId = request.pool_id.parse()?;
    let wanted = address(&request.address)?;
    let answer = |address| {
        Answer(Address {
            address,
            data: BTreeMap::new(),
        })
    };
    let (network, gateway) = gateway(&desk.controller, pool).await?;
    if request.options.get(PURPOSE.0).map(String::as_str) != Some(PURPOSE.1) {
        let wanted = (Family::of(gateway), wanted);
        let held = desk.controller.address_hold(pool.network, wanted).await?;
        return Ok(answer(held));
    }
    match wanted {
        Some(asked) if asked != gateway => Err(Refusal::OtherGateway {
            network: network.name,
            has: gateway,
            asked,
        }),
        Some(_) | None => {
            let length = pool.prefix.0.prefix_len();
            let whole = IpNet::new(gateway, length).map_err(|_too_long| {
                // The id of the pool was not made by us.
                Refusal::BadPool(request.pool_id)
            })?;
            Ok(answer(Prefix(whole)))
        }
    }
}

/// The gateway is the network's, so it is not held, and there is nothing to give back.
async fn release_address(State(desk): State<Desk>, body: Bytes) -> Result<Answer<Done>, Refusal> {
    let request: ReleaseAddress = read(&body)?;
    let pool: PoolId = request.pool_id.parse()?;
    if let Some(address) = address(&request.address)? {
        desk.controller.address_free(pool.network, address).await?;
    }
    Ok(Answer(Done {}))
}
