//! What is said of endpoints in the table `overlay_peers`, and what others' records are worth.

use super::network::State;
use crate::{
    core::{
        model::{
            EndpointId, EndpointRecord, Key, NetworkRecord, PeerRecord, Prefix, TableName, Value,
        },
        overlay::{self, check_peer},
        wire::codec,
    },
    driver::{DriverError, ObjectType, TableEvent, TableInterest, contract::check_subnet},
};

/// The table in which every node says where its endpoints are.
pub(super) const TABLE: &str = "overlay_peers";

pub(super) fn interest() -> TableInterest {
    TableInterest {
        table: table(),
        object: ObjectType::Endpoint,
    }
}

pub(super) fn table() -> TableName {
    TableName::new(TABLE).expect("letters and an underscore are a table name")
}

pub(super) fn check_subnets(record: &NetworkRecord) -> Result<(), DriverError> {
    for subnet in &record.subnets {
        check_subnet(subnet)?;
        if subnet.vni.is_none() {
            return Err(DriverError::Subnet {
                prefix: subnet.prefix,
                expected: "an overlay's subnet needs a VXLAN id from the leader",
            });
        }
    }
    Ok(())
}

/// Returns an endpoint's addresses: one at least, and each in a subnet of the network.
pub(super) fn addresses_of(
    overlay: &overlay::Overlay,
    endpoint: &EndpointRecord,
) -> Result<Vec<Prefix>, DriverError> {
    let addresses: Vec<Prefix> = endpoint.addresses().collect();
    let in_subnet = |prefix: &Prefix| overlay.subnet_of(prefix.0.addr()).is_some();
    match !addresses.is_empty() && addresses.iter().all(in_subnet) {
        true => Ok(addresses),
        false => Err(DriverError::Address {
            endpoint: endpoint.id,
            network: endpoint.network,
        }),
    }
}

pub(super) fn endpoint_key(endpoint: EndpointId) -> Key {
    Key::new(endpoint.0.to_be_bytes().to_vec()).expect("16 bytes are a key")
}

pub(super) fn endpoint_of(key: &Key) -> Option<EndpointId> {
    let bytes = key.as_bytes().try_into().ok()?;
    Some(EndpointId(u128::from_be_bytes(bytes)))
}

/// A record that cannot be used counts as none, and keeps no other from being programmed.
pub(super) fn handle_event(state: &mut State, event: &TableEvent) {
    let Some(endpoint) = endpoint_of(&event.key) else {
        state.refused += 1;
        tracing::warn!(network = %event.network, owner = %event.owner, "a peer's key is no endpoint id");
        return;
    };
    let peer = event.value.as_ref().and_then(|value| {
        let peer = read_peer(value);
        if let Err(reason) = &peer {
            state.refused += 1;
            tracing::warn!(network = %event.network, owner = %event.owner, %endpoint, %reason, "a peer record is of no use");
        }
        peer.ok()
    });
    state.overlay.handle_peer(endpoint, peer);
}

fn read_peer(value: &Value) -> Result<PeerRecord, String> {
    let peer: PeerRecord =
        codec::decode(value.as_bytes()).map_err(|malformed| malformed.to_string())?;
    check_peer(&peer).map_err(|unusable| unusable.to_string())?;
    Ok(peer)
}
