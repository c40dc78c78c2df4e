//! Reconcile: what the kernel should hold, and the steps to it.

use std::net::IpAddr;

use benches::processor::ProcessorTime;
use criterion::{Criterion, Throughput};
use rand::RngExt;
use weft::{
    core::{
        model::{EndpointId, Mac, PeerRecord, Prefix, Subnet, Vni, Vtep},
        overlay::{Local, Overlay, Plane, Settings},
    },
    dataplane::steps,
};

fn main() {
    let mut criterion = ProcessorTime::criterion();
    for peers in [1_000, 10_000] {
        reconcile(&mut criterion, peers);
    }
    criterion.final_summary();
}

fn reconcile(criterion: &mut Criterion<ProcessorTime>, peers: u32) {
    let mut overlay = overlay(peers);
    let before = overlay.desired();
    overlay.handle_peer(EndpointId(u128::MAX), Some(peer(peers + 2)));
    let after = overlay.desired();
    assert_eq!(steps(&before, &after).len(), 2, "one peer is two entries");

    let mut group = criterion.benchmark_group(format!("reconcile {peers} peers"));
    group.throughput(Throughput::Elements(u64::from(peers)));
    group.bench_function("desired", |bencher| {
        bencher.iter_with_large_drop(|| overlay.desired());
    });
    for (name, actual) in [
        ("steps from nothing", &Plane::default()),
        ("steps, one peer more", &before),
        ("steps, nothing to do", &after),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| steps(actual, &after));
        });
    }
    group.finish();
}

/// A network with one endpoint here and `peers` on a hundred other nodes.
fn overlay(peers: u32) -> Overlay {
    let subnet = Subnet {
        prefix: prefix("10.0.0.0/8"),
        gateway: [10, 0, 0, 1].into(),
        vni: Vni::new(4_096),
    };
    let mut overlay = Overlay::new(vtep(1), Settings::default(), vec![subnet]);
    let here = Local {
        addresses: vec![prefix("10.0.0.2/8")],
        mac: Mac([2, 1, 0, 0, 0, 2]),
    };
    overlay.handle_join(EndpointId(1), here);
    let mut rng = benches::corpus::rng();
    for n in 0..peers {
        overlay.handle_peer(EndpointId(rng.random()), Some(peer(n)));
    }
    overlay
}

fn peer(n: u32) -> PeerRecord {
    let [_, a, b, c] = (n + 3).to_be_bytes();
    PeerRecord {
        address: prefix(&format!("10.{a}.{b}.{c}/8")),
        mac: Mac([2, 0, 0, a, b, c]),
        vtep: vtep(u8::try_from(2 + n % 100).expect("below 102")),
        others: Vec::new(),
    }
}

fn vtep(n: u8) -> Vtep {
    Vtep(IpAddr::from([192, 0, 2, n]))
}

fn prefix(text: &str) -> Prefix {
    Prefix(text.parse().expect("a prefix"))
}
