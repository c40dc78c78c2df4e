//! Weft as the engine's network driver: its networks stand for Weft's, its endpoints are this node's.

use std::collections::BTreeMap;

use axum::{Router, body::Bytes, extract::State, routing::post};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Desk,
    call::{Answer, Done, Refusal, address, or_default, read},
    pool::{ADDRESS_SPACE, named, subnet_of},
};
use crate::{
    controller::{HeldEndpoint, Sandbox},
    core::model::{EndpointId, Family, Name, NetworkId, Prefix},
    engine,
};

/// Where a user's options are among the engine's.
const GENERIC: &str = "com.docker.network.generic";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Capabilities {
    scope: &'static str,
    connectivity_scope: &'static str,
    gw_alloc_checker: bool,
}

impl Capabilities {
    /// Networks are known to each engine by itself, since an engine outside a swarm refuses any other scope; what they
    /// connect spans the cluster.
    const OURS: Self = Self {
        scope: "local",
        connectivity_scope: "global",
        gw_alloc_checker: true,
    };
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(default, deserialize_with = "or_default")]
    options: BTreeMap<String, Value>,
    #[serde(rename = "IPv4Data", default, deserialize_with = "or_default")]
    ipv4: Vec<Ipam>,
    #[serde(rename = "IPv6Data", default, deserialize_with = "or_default")]
    ipv6: Vec<Ipam>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GwAllocCheck {
    #[serde(default, deserialize_with = "or_default")]
    options: BTreeMap<String, Value>,
}

/// For which families the engine need not ask for a gateway's address.
#[derive(Serialize, Default)]
struct GwAllocChecked {
    #[serde(rename = "SkipIPv4")]
    skip_ipv4: bool,
    #[serde(rename = "SkipIPv6")]
    skip_ipv6: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    #[serde(default)]
    address_space: String,
    #[serde(default)]
    pool: String,
}

#[derive(Deserialize)]
struct OfNetwork {
    #[serde(rename = "NetworkID")]
    network_id: String,
}

#[derive(Deserialize)]
struct OfEndpoint {
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    #[serde(default, deserialize_with = "or_default")]
    interface: Interface,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Interface {
    #[serde(default)]
    address: String,
    #[serde(rename = "AddressIPv6", default)]
    address_ipv6: String,
    #[serde(default)]
    mac_address: String,
}

/// Only what the engine has not given may be answered; it takes anything else for a change, and refuses it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    interface: CreatedInterface,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreatedInterface {
    #[serde(skip_serializing_if = "Option::is_none")]
    mac_address: Option<String>,
}

/// No gateway: then the engine connects the container to its own bridge too, for its default route and published ports.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Joined {
    interface_name: InterfaceName,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    static_routes: Vec<StaticRoute>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InterfaceName {
    src_name: String,
    dst_prefix: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StaticRoute {
    destination: Prefix,
    /// 0: by the next hop; 1: on the link.
    route_type: u8,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_hop: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct OperInfo {
    value: BTreeMap<String, String>,
}

pub(super) fn router() -> Router<Desk> {
    let nothing = async || Answer(Done {});
    let swarm = async || Refusal::Swarm;
    let show = async || {
        Answer(OperInfo {
            value: BTreeMap::new(),
        })
    };
    Router::new()
        .route("/NetworkDriver.GwAllocCheck", post(check_gateways))
        .route("/NetworkDriver.CreateNetwork", post(create_network))
        .route("/NetworkDriver.DeleteNetwork", post(delete_network))
        .route("/NetworkDriver.CreateEndpoint", post(create_endpoint))
        .route("/NetworkDriver.DeleteEndpoint", post(delete_endpoint))
        .route("/NetworkDriver.EndpointOperInfo", post(show))
        .route("/NetworkDriver.Join", post(join))
        .route("/NetworkDriver.Leave", post(leave))
        .route("/NetworkDriver.ProgramExternalConnectivity", post(nothing))
        .route("/NetworkDriver.RevokeExternalConnectivity", post(nothing))
        .route("/NetworkDriver.DiscoverNew", post(nothing))
        .route("/NetworkDriver.DiscoverDelete", post(nothing))
        .route("/NetworkDriver.AllocateNetwork", post(swarm))
        .route("/NetworkDriver.FreeNetwork", post(swarm))
}

pub(super) fn introduction<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route(
        "/NetworkDriver.GetCapabilities",
        post(async || Answer(Capabilities::OURS)),
    )
}

async fn create_network(State(desk): State<Desk>, body: Bytes) -> Result<Answer<Done>, Refusal> {
    let request: CreateNetwork = read(&body)?;
    let mut pools = request.ipv4.iter().chain(&request.ipv6);
    if request.ipv4.is_empty() || pools.any(|pool| pool.address_space != ADDRESS_SPACE) {
        return Err(Refusal::OtherIpam);
    }
    let network = named(&desk.controller, &generic(&request.options)).await?;
    for (family, pools) in [(Family::V4, &request.ipv4), (Family::V6, &request.ipv6)] {
        for pool in pools {
            // One that was asked for in another network's name is none of this one's.
            subnet_of(&network, family, &pool.pool)?;
        }
    }
    desk.controller
        .engine_network_put(&request.network_id, network.id)
        .await?;
    tracing::info!(network = %network.name, engine = request.network_id, "the engine has the network");
    desk.bell.ring(request.network_id);
    Ok(Answer(Done {}))
}

/// A subnet of Weft has a gateway; a family of which the network has no subnet needs none. Asked before anything else of a
/// network, of which nothing is known by then but its options: what is wrong with these is said when the engine asks for a pool.
async fn check_gateways(
    State(desk): State<Desk>,
    body: Bytes,
) -> Result<Answer<GwAllocChecked>, Refusal> {
    let request: GwAllocCheck = read(&body)?;
    let Ok(network) = named(&desk.controller, &generic(&request.options)).await else {
        return Ok(Answer(GwAllocChecked::default()));
    };
    let has = |family| network.families().any(|of| of == family);
    Ok(Answer(GwAllocChecked {
        skip_ipv4: !has(Family::V4),
        skip_ipv6: !has(Family::V6),
    }))
}

/// Returns a user's options. What is no text is none of ours.
fn generic(options: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    let given = options.get(GENERIC).and_then(Value::as_object);
    let texts = given
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    texts.collect()
}

async fn delete_network(State(desk): State<Desk>, body: Bytes) -> Result<Answer<Done>, Refusal> {
    let request: OfNetwork = read(&body)?;
    desk.controller
        .engine_network_remove(&request.network_id)
        .await?;
    Ok(Answer(Done {}))
}

async fn create_endpoint(
    State(desk): State<Desk>,
    body: Bytes,
) -> Result<Answer<Created>, Refusal> {
    let request: CreateEndpoint = read(&body)?;
    let network = known(&desk, &request.network_id).await?;
    let interface = request.interface;
    let mac = match interface.mac_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|source| Refusal::Mac {
            text: text.to_owned(),
            source,
        })?),
    };
    let first = address(&interface.address)?.ok_or(Refusal::OtherIpam)?;
    let second = address(&interface.address_ipv6)?;
    let wish = HeldEndpoint {
        id: endpoint_id(&request.endpoint_id)?,
        name: first_name(&request.endpoint_id)?,
        addresses: [first].into_iter().chain(second).collect(),
        mac,
    };
    let made = desk.controller.held_endpoint_create(network, wish).await?;
    desk.bell.ring(request.network_id);
    let answer = CreatedInterface {
        mac_address: mac.is_none().then(|| made.record.mac.to_string()),
    };
    Ok(Answer(Created { interface: answer }))
}

async fn join(State(desk): State<Desk>, body: Bytes) -> Result<Answer<Joined>, Refusal> {
    let request: OfEndpoint = read(&body)?;
    let network = known(&desk, &request.network_id).await?;
    let endpoint = endpoint_id(&request.endpoint_id)?;
    let joined = desk
        .controller
        .held_endpoint_join(network, endpoint)
        .await?;
    let Some(answer) = joined.sandbox.and_then(joined_answer) else {
        desk.controller
            .held_endpoint_leave(network, endpoint)
            .await?;
        return Err(Refusal::NoInterface);
    };
    desk.bell.ring(request.network_id);
    Ok(Answer(answer))
}

fn joined_answer(sandbox: Sandbox) -> Option<Joined> {
    let interface = sandbox.interface?;
    let routes = sandbox.routes.into_iter().map(|route| StaticRoute {
        destination: route.destination,
        route_type: u8::from(route.via.is_none()),
        next_hop: route.via.map(|via| via.to_string()).unwrap_or_default(),
    });
    Some(Joined {
        interface_name: InterfaceName {
            src_name: interface.source,
            dst_prefix: interface.prefix,
        },
        static_routes: routes.collect(),
    })
}

/// The engine forgets the endpoint whatever is answered, so one that is not known is no failure.
async fn leave(State(desk): State<Desk>, body: Bytes) -> Result<Answer<Done>, Refusal> {
    let request: OfEndpoint = read(&body)?;
    if let Some(network) = network(&desk, &request.network_id).await? {
        let endpoint = endpoint_id(&request.endpoint_id)?;
        desk.controller
            .held_endpoint_leave(network, endpoint)
            .await?;
    }
    Ok(Answer(Done {}))
}

async fn delete_endpoint(State(desk): State<Desk>, body: Bytes) -> Result<Answer<Done>, Refusal> {
    let request: OfEndpoint = read(&body)?;
    if let Some(network) = network(&desk, &request.network_id).await? {
        let endpoint = endpoint_id(&request.endpoint_id)?;
        desk.controller
            .held_endpoint_remove(network, endpoint)
            .await?;
    }
    Ok(Answer(Done {}))
}

async fn network(desk: &Desk, engines: &str) -> Result<Option<NetworkId>, Refusal> {
    let networks = desk.controller.engine_networks().await?;
    Ok(networks.get(engines).copied())
}

async fn known(desk: &Desk, engines: &str) -> Result<NetworkId, Refusal> {
    let found = network(desk, engines).await?;
    found.ok_or_else(|| Refusal::UnknownNetwork(engines.to_owned()))
}

fn endpoint_id(text: &str) -> Result<EndpointId, Refusal> {
    engine::endpoint_id(text).map_err(|source| Refusal::Id {
        text: text.to_owned(),
        source,
    })
}

/// The engine does not say the container's name here: it is found out once the endpoint is there.
fn first_name(endpoint: &str) -> Result<Name, Refusal> {
    let short = endpoint.get(..12).unwrap_or(endpoint);
    Name::new(short).map_err(|source| Refusal::Name {
        text: short.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::driver;

    #[test]
    fn a_join_is_answered_with_the_interface_and_routes_and_never_a_gateway() {
        let route = |destination: &str, via: Option<&str>| driver::Route {
            destination: Prefix(destination.parse().unwrap()),
            via: via.map(|via| via.parse().unwrap()),
        };
        let mut sandbox = Sandbox {
            name: None,
            interface: Some(driver::InterfaceName {
                source: "w80cf563d".to_owned(),
                prefix: "eth".to_owned(),
            }),
            gateways: vec!["10.0.0.1".parse().unwrap()],
            routes: Vec::new(),
        };
        let interface = json!({"SrcName": "w80cf563d", "DstPrefix": "eth"});

        let plain = joined_answer(sandbox.clone());
        sandbox.routes = vec![
            route("10.9.0.0/16", Some("10.0.0.1")),
            route("10.8.0.0/16", None),
        ];
        let routed = joined_answer(sandbox.clone());
        sandbox.interface = None;

        let plain = serde_json::to_value(plain.unwrap()).unwrap();
        assert_eq!(plain, json!({ "InterfaceName": interface }));
        let routed = serde_json::to_value(routed.unwrap()).unwrap();
        assert_eq!(
            routed["StaticRoutes"],
            json!([
                {"Destination": "10.9.0.0/16", "RouteType": 0, "NextHop": "10.0.0.1"},
                {"Destination": "10.8.0.0/16", "RouteType": 1},
            ])
        );
        assert!(joined_answer(sandbox).is_none());
    }
}
