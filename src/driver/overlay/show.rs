//! What of a network a person is shown.

use serde_json::json;

use crate::core::{
    model::PeerRecord,
    overlay::{self, Plane},
};

pub(super) fn peers(overlay: &overlay::Overlay, actual: &Plane) -> Vec<serde_json::Value> {
    let programmed = |peer: &PeerRecord| {
        let vni = overlay
            .subnet_of(peer.address.0.addr())
            .and_then(|subnet| subnet.vni);
        vni.and_then(|vni| actual.fdb.get(&(vni, peer.mac))) == Some(&peer.vtep)
    };
    let shown = overlay.peers().map(|(endpoint, peer)| {
        json!({
            "endpoint": endpoint,
            "address": peer.address,
            "others": peer.others,
            "mac": peer.mac,
            "vtep": peer.vtep,
            "programmed": programmed(peer),
        })
    });
    shown.collect()
}

pub(super) fn fdb(actual: &Plane) -> Vec<serde_json::Value> {
    let shown = actual
        .fdb
        .iter()
        .map(|((vni, mac), vtep)| json!({ "vni": vni, "mac": mac, "vtep": vtep }));
    shown.collect()
}

pub(super) fn neighbours(actual: &Plane) -> Vec<serde_json::Value> {
    let shown = actual
        .neighbours
        .iter()
        .map(|((vni, address), mac)| json!({ "vni": vni, "address": address, "mac": mac }));
    shown.collect()
}
