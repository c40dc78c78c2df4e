//! The kernel itself, in a namespace of each test's own. Skipped without root, unless `WEFT_REQUIRE_DOCKER=1`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use tempfile::TempDir;

use super::*;
use crate::{
    core::{
        model::{EndpointId, Mac, Prefix},
        overlay::Guard,
    },
    dataplane::{link_name, reconcile},
};

const NETWORK: NetworkId = NetworkId(1);
/// How many peers a large network has.
const MANY: u32 = 2_000;
/// How long all of them may take: ten times what is measured in a debug build on a busy machine.
const MANY_MAX: Duration = Duration::from_secs(3);
/// How long a change may go unnoticed.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn the_kernel_reaches_any_plane_from_any_other_and_a_restart_finds_it() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        let planes = [
            plane(3, 1450),
            plane(0, 1450),
            Plane::default(),
            plane(2, 1300),
            plane(5, 1450),
        ];
        for wanted in planes {
            reconcile(&kernel, NETWORK, &wanted).await.unwrap();

            assert_eq!(kernel.list(NETWORK).await.unwrap(), wanted);
            let restarted = open(&place).await;
            assert_eq!(restarted.list(NETWORK).await.unwrap(), wanted);
        }
        reconcile(&kernel, NETWORK, &Plane::default())
            .await
            .unwrap();
        assert_eq!(namespace::list(place.path()).unwrap(), []);
    });
}

#[test]
fn what_was_left_of_networks_that_are_gone_is_removed() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        let other = NetworkId(2);
        reconcile(&kernel, NETWORK, &plane(2, 1450)).await.unwrap();
        reconcile(&kernel, other, &elsewhere()).await.unwrap();
        drop(kernel);

        let restarted = open(&place).await;
        restarted.keep_only(&BTreeSet::from([other])).await.unwrap();

        assert_eq!(restarted.list(NETWORK).await.unwrap(), Plane::default());
        assert_eq!(restarted.list(other).await.unwrap(), elsewhere());
        restarted.keep_only(&BTreeSet::new()).await.unwrap();
        assert_eq!(link::list(&restarted.host).await.unwrap().len(), 1);
    });
}

#[test]
fn a_pair_that_was_begun_and_not_finished_is_removed() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        let wanted = plane(1, 1450);
        reconcile(&kernel, NETWORK, &wanted).await.unwrap();
        let space = kernel.find(NETWORK).await.unwrap().unwrap();
        let orphan = rtnetlink::LinkVeth::new("weft0123456789a", "peer").build();
        let added = space.netlink.handle.link().add(orphan).execute().await;
        added.unwrap();

        reconcile(&kernel, NETWORK, &wanted).await.unwrap();

        assert_eq!(
            link::find(&space.netlink, "peer")
                .await
                .unwrap()
                .map(|found| found.name),
            None
        );
        reconcile(&kernel, NETWORK, &Plane::default())
            .await
            .unwrap();
    });
}

#[test]
fn a_link_in_a_sandbox_is_still_the_endpoints_and_is_found_there_again() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        let wanted = plane(1, 1450);
        reconcile(&kernel, NETWORK, &wanted).await.unwrap();
        let sandbox = place.path().join("sandbox");
        namespace::make(&sandbox).await.unwrap();
        let placement = Placement {
            endpoint: EndpointId(1),
            mac: mac(1),
            addresses: vec![prefix("10.0.0.1/24"), prefix("fd00::1/64")],
            name: None,
            prefix: "eth".to_owned(),
            routes: vec![
                (prefix("192.0.2.0/24"), None),
                (prefix("0.0.0.0/0"), "192.0.2.1".parse().ok()),
            ],
        };
        let outer = link_name(EndpointId(1));

        for _again in 0..2 {
            let name = kernel.place(&outer, &sandbox, &placement).await.unwrap();

            assert_eq!(name, "eth0");
            assert_eq!(kernel.list(NETWORK).await.unwrap(), wanted);
        }
        assert!(link::find(&kernel.host, &outer).await.unwrap().is_none());
        let nowhere = kernel.place(&outer, place.path(), &placement).await;
        assert!(matches!(nowhere, Err(DataplaneError::Sandbox { .. })));
        namespace::remove(&sandbox).unwrap();
        reconcile(&kernel, NETWORK, &Plane::default())
            .await
            .unwrap();
    });
}

#[test]
fn endpoints_whose_ids_begin_alike_have_a_link_each_here_and_after_a_restart() {
    in_a_namespace(async |place| {
        let alike = |last: u128| EndpointId((0xabcd << 112) | last);
        let of = |network: u32, endpoints: &[u128]| {
            let mut plane = self::network(4095 + network, 1450);
            for &last in endpoints {
                let n = u8::try_from(last).unwrap();
                let link = Link::Endpoint {
                    bridge: vni(4095 + network),
                    mac: mac(n),
                    addresses: vec![prefix(&format!("10.0.0.{n}/24"))],
                    mtu: 1450,
                };
                plane.links.insert(LinkId::Endpoint(alike(last)), link);
            }
            plane
        };
        let kernel = open(&place).await;
        reconcile(&kernel, NETWORK, &of(1, &[1])).await.unwrap();
        reconcile(&kernel, NETWORK, &of(1, &[1, 2])).await.unwrap();
        reconcile(&kernel, NetworkId(2), &of(2, &[3]))
            .await
            .unwrap();

        let restarted = open(&place).await;
        let networks = BTreeSet::from([NETWORK, NetworkId(2)]);
        restarted.keep_only(&networks).await.unwrap();
        reconcile(&restarted, NETWORK, &of(1, &[2, 4]))
            .await
            .unwrap();

        for (network, wanted) in [(NETWORK, of(1, &[2, 4])), (NetworkId(2), of(2, &[3]))] {
            assert_eq!(restarted.list(network).await.unwrap(), wanted);
        }
        let mut macs = BTreeSet::new();
        for (network, last) in [(NETWORK, 2), (NETWORK, 4), (NetworkId(2), 3)] {
            let outer = restarted.link_name(network, alike(last));
            let outer = link::find(&restarted.host, &outer).await.unwrap();
            macs.insert(outer.unwrap().mac.unwrap());
        }
        assert_eq!(macs, BTreeSet::from([mac(2), mac(3), mac(4)]));
        restarted.keep_only(&BTreeSet::new()).await.unwrap();
    });
}

#[test]
fn what_somebody_else_takes_away_is_noticed() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        let wanted = plane(1, 1450);
        reconcile(&kernel, NETWORK, &wanted).await.unwrap();
        let space = kernel.find(NETWORK).await.unwrap().unwrap();
        let bridge = link::find(&space.netlink, "br-4096").await.unwrap();
        // What we have done ourselves is noticed too, and mends nothing.
        while tokio::time::timeout(Duration::from_millis(200), kernel.changed())
            .await
            .is_ok()
        {}

        let removed = space.netlink.handle.link().del(bridge.unwrap().index);
        removed.execute().await.unwrap();

        let changed = tokio::time::timeout(SOON, kernel.changed()).await;
        assert_eq!(changed, Ok(NETWORK));
        reconcile(&kernel, NETWORK, &wanted).await.unwrap();
        assert_eq!(kernel.list(NETWORK).await.unwrap(), wanted);
        reconcile(&kernel, NETWORK, &Plane::default())
            .await
            .unwrap();
    });
}

#[test]
fn what_is_not_ours_is_not_touched() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        reconcile(&kernel, NETWORK, &plane(2, 1450)).await.unwrap();
        let space = kernel.find(NETWORK).await.unwrap().unwrap();
        let strangers = [
            rtnetlink::LinkBridge::new("br-lan").mtu(1400).build(),
            rtnetlink::LinkVeth::new("veth0", "veth1").mtu(1400).build(),
        ];
        for stranger in strangers {
            let added = space.netlink.handle.link().add(stranger).execute().await;
            added.unwrap();
        }
        let lan = link::find(&space.netlink, "br-lan").await.unwrap().unwrap();
        let address = prefix("10.9.9.9/24");
        address::add(&space.netlink, lan.index, address)
            .await
            .unwrap();
        let there = async || {
            let links = link::list(&space.netlink).await.unwrap();
            let not_ours = links
                .into_iter()
                .filter(|link| name::id_of(&link.name).is_none());
            let mut seen: Vec<_> = not_ours.map(|link| (link.name, link.mtu)).collect();
            seen.sort();
            seen
        };
        let before = there().await;

        for wanted in [plane(5, 1300), plane(0, 1450), plane(1, 1450)] {
            reconcile(&kernel, NETWORK, &wanted).await.unwrap();

            assert_eq!(there().await, before);
            let addresses = address::list(&space.netlink).await.unwrap();
            assert!(addresses.contains(&(lan.index, address)));
            assert_eq!(kernel.list(NETWORK).await.unwrap(), wanted);
        }
        reconcile(&kernel, NETWORK, &Plane::default())
            .await
            .unwrap();
    });
}

#[test]
fn a_tunnel_that_is_in_the_way_is_named() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        let foreign = rtnetlink::LinkVxlan::new("foreign0", 4096).port(4789);
        let added = kernel.host.handle.link().add(foreign.build()).execute();
        added.await.unwrap();

        let refused = reconcile(&kernel, NETWORK, &plane(1, 1450)).await;

        let taken = DataplaneError::Taken {
            vni: vni(4096),
            port: 4789,
            by: "device foreign0".to_owned(),
        };
        assert_eq!(refused, Err(taken));
        reconcile(&kernel, NETWORK, &Plane::default())
            .await
            .unwrap();
    });
}

#[test]
fn a_port_that_a_program_has_is_named() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        let _has_it = std::net::UdpSocket::bind("0.0.0.0:4789").unwrap();

        let refused = reconcile(&kernel, NETWORK, &plane(1, 1450)).await;

        let shown = refused.unwrap_err().to_string();
        assert!(shown.contains("a program"), "{shown}");
        assert!(shown.contains("sport = :4789"), "{shown}");
        reconcile(&kernel, NETWORK, &Plane::default())
            .await
            .unwrap();
    });
}

#[test]
#[expect(clippy::print_stdout, reason = "who measures shows what it is")]
#[expect(clippy::disallowed_methods, reason = "the kernel keeps real time")]
fn two_thousand_peers_are_programmed_in_one_go() {
    in_a_namespace(async |place| {
        let kernel = open(&place).await;
        reconcile(&kernel, NETWORK, &plane(0, 1450)).await.unwrap();
        let wanted = plane(MANY, 1450);
        let entries: Vec<Step> = crate::dataplane::steps(&plane(0, 1450), &wanted)
            .into_iter()
            .filter(|step| tunnel_of(step).is_some())
            .collect();
        let (fdb, neighbours): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|step| matches!(step, Step::SetFdb { .. }));

        for (what, steps) in [("forwarding entries", fdb), ("neighbours", neighbours)] {
            let before = Instant::now();
            kernel.apply(NETWORK, steps).await.unwrap();
            println!("{MANY} {what}: {:?}", before.elapsed());
            assert!(before.elapsed() < MANY_MAX);
        }
        let before = Instant::now();
        reconcile(&kernel, NETWORK, &wanted).await.unwrap();
        println!("guards and a list: {:?}", before.elapsed());
        let before = Instant::now();
        assert_eq!(kernel.list(NETWORK).await.unwrap(), wanted);
        println!("a list: {:?}", before.elapsed());
        reconcile(&kernel, NETWORK, &Plane::default())
            .await
            .unwrap();
    });
}

/// Runs a test on a thread with a network and mounts of its own.
#[expect(clippy::print_stderr, reason = "who skips a test has to say so")]
fn in_a_namespace(test: impl AsyncFnOnce(TempDir) + Send + 'static) {
    if !geteuid().is_root() {
        let must = std::env::var_os("WEFT_REQUIRE_DOCKER").is_some_and(|value| value == "1");
        assert!(!must, "WEFT_REQUIRE_DOCKER=1, but this is not root");
        eprintln!("skipped: this needs root");
        return;
    }
    let own = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(tempfile::tempdir().unwrap()));
    });
    own.join().unwrap();
}

async fn open(place: &TempDir) -> Kernel {
    Kernel::open(place.path().to_owned())
        .await
        .unwrap_or_else(|missing| panic!("{missing:?}"))
}

/// A network with an endpoint here, if it has peers, and so many of them.
fn plane(peers: u32, mtu: u32) -> Plane {
    let mut plane = network(4096, mtu);
    let endpoint = Link::Endpoint {
        bridge: vni(4096),
        mac: mac(1),
        addresses: vec![prefix("10.0.0.1/24"), prefix("fd00::1/64")],
        mtu,
    };
    if peers > 0 {
        plane
            .links
            .insert(LinkId::Endpoint(EndpointId(1)), endpoint);
    }
    let mut members = BTreeSet::new();
    for n in 0..peers {
        let [_, a, b, c] = n.to_be_bytes();
        let vtep = Vtep(IpAddr::from([192, 0, 2, 1 + c % 100]));
        let mac = Mac([2, 0, 1, a, b, c]);
        plane.fdb.insert((vni(4096), mac), vtep);
        let address = match n % 2 {
            0 => IpAddr::from([10, a + 1, b, c]),
            _ => format!("fd00::{n:x}").parse().unwrap(),
        };
        plane.neighbours.insert((vni(4096), address), mac);
        members.insert(vtep);
    }
    plane.guards = BTreeMap::from([(
        vni(4096),
        Guard {
            port: 4789,
            members,
        },
    )]);
    plane
}

fn elsewhere() -> Plane {
    let mut plane = network(4097, 1450);
    let members = BTreeSet::from([Vtep("2001:db8::7".parse().unwrap())]);
    plane.guards = BTreeMap::from([(
        vni(4097),
        Guard {
            port: 4789,
            members,
        },
    )]);
    plane
}

fn network(id: u32, mtu: u32) -> Plane {
    let mut plane = Plane::default();
    let gateways = BTreeSet::from([prefix("10.0.0.254/24"), prefix("fd00::ff/64")]);
    let bridge = Link::Bridge { gateways, mtu };
    let tunnel = Link::Vxlan {
        bridge: vni(id),
        port: 4789,
        source: IpAddr::from([192, 0, 2, 1]),
        mtu,
    };
    plane.links.insert(LinkId::Bridge(vni(id)), bridge);
    plane.links.insert(LinkId::Vxlan(vni(id)), tunnel);
    plane
}

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn prefix(text: &str) -> Prefix {
    Prefix(text.parse().unwrap())
}
