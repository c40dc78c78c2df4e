//! What of a network a person is shown.

use serde_json::json;

use crate::{
    core::{
        model::PeerRecord,
        overlay::{self, Plane},
    },
    driver::DataplaneView,
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

/// Whether the kernel is as it should be; `weft debug dataplane` shows all of it.
pub(super) fn in_short(view: &DataplaneView) -> serde_json::Value {
    let differing = view.compared.iter().filter(|one| one.differs()).count();
    let last = view.last.as_ref();
    let refused = last.and_then(|last| last.outcome.as_ref().err());
    json!({
        "carries_packets": view.carries_packets,
        "as_desired": view.is_as_desired(),
        "differences": differing,
        "problem": view.problem.as_ref().or(refused),
    })
}
