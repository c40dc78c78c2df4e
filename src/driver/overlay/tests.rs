//! The overlay driver on a data plane in memory.

use super::*;
use crate::{
    core::model::{Mac, Name, NodeId, Subnet, Vni, Vtep},
    core::overlay::Link,
    dataplane::{DataplaneError, Memory, Step},
};

#[tokio::test]
async fn a_join_tells_where_the_endpoint_is_and_makes_its_links() {
    let (driver, memory) = driver();
    driver.create_network(&network()).await.unwrap();
    driver.create_endpoint(&endpoint(1)).await.unwrap();

    let joined = driver.join(&endpoint(1)).await.unwrap();

    let [entry] = &joined.entries[..] else {
        panic!("one entry: {joined:?}")
    };
    let peer: PeerRecord = codec::decode(entry.value.as_bytes()).unwrap();
    assert_eq!(entry.table.as_str(), TABLE);
    assert_eq!(endpoint_of(&entry.key), Some(EndpointId(1)));
    assert_eq!((peer.vtep, peer.mac), (vtep(1), mac(1)));
    assert_eq!(joined.gateways, ["10.0.0.254".parse::<IpAddr>().unwrap()]);
    assert_eq!(memory.plane(NETWORK).links.len(), 3);
}

#[tokio::test]
async fn every_step_may_be_taken_twice() {
    let (driver, memory) = driver();
    let mut answers = Vec::new();
    for _ in 0..2 {
        driver.create_network(&network()).await.unwrap();
        driver.create_endpoint(&endpoint(1)).await.unwrap();
        answers.push(driver.join(&endpoint(1)).await.unwrap());
    }
    assert_eq!(answers[0], answers[1]);

    for _ in 0..2 {
        driver.leave(NETWORK, EndpointId(1)).await.unwrap();
        driver
            .delete_endpoint(NETWORK, EndpointId(1))
            .await
            .unwrap();
        driver.delete_network(NETWORK).await.unwrap();
    }
    assert_eq!(memory.plane(NETWORK), Plane::default());
}

#[tokio::test]
async fn events_before_the_first_join_are_programmed_at_it() {
    let (driver, memory) = driver();
    driver.create_network(&network()).await.unwrap();
    driver
        .event_notify(&[created(2), created(3)])
        .await
        .unwrap();
    assert_eq!(memory.plane(NETWORK), Plane::default());

    driver.create_endpoint(&endpoint(1)).await.unwrap();
    driver.join(&endpoint(1)).await.unwrap();

    assert_eq!(memory.plane(NETWORK).fdb.len(), 2);
}

#[tokio::test]
async fn an_entry_that_goes_is_no_longer_programmed() {
    let (driver, memory) = driver();
    driver.create_network(&network()).await.unwrap();
    driver.create_endpoint(&endpoint(1)).await.unwrap();
    driver.join(&endpoint(1)).await.unwrap();
    driver.event_notify(&[created(2)]).await.unwrap();

    let gone = TableEvent {
        previous: created(2).value,
        value: None,
        ..created(2)
    };
    driver.event_notify(&[gone]).await.unwrap();

    assert!(memory.plane(NETWORK).fdb.is_empty());
}

#[tokio::test]
async fn an_unusable_record_is_ignored_and_the_others_are_not() {
    let (driver, memory) = driver();
    driver.create_network(&network()).await.unwrap();
    driver.create_endpoint(&endpoint(1)).await.unwrap();
    driver.join(&endpoint(1)).await.unwrap();
    let garbage = TableEvent {
        value: Some(Value::new(vec![0xff; 3]).unwrap()),
        ..created(2)
    };
    let no_key = TableEvent {
        key: Key::new(vec![1]).unwrap(),
        ..created(3)
    };

    driver
        .event_notify(&[garbage, no_key, created(4)])
        .await
        .unwrap();

    assert_eq!(memory.plane(NETWORK).fdb.len(), 1);
    assert_eq!(driver.inspect(NETWORK).await["refused_records"], 2);
}

#[tokio::test]
async fn a_person_can_read_an_entry() {
    let (driver, _memory) = driver();
    let event = created(2);
    let value = event.value.unwrap();

    let (endpoint, meaning) = driver
        .decode_table_entry(&event.table, &event.key, &value)
        .unwrap();

    assert_eq!(endpoint, EndpointId(2));
    assert_eq!(meaning["Host IP"], "192.0.2.2");
}

#[tokio::test]
async fn what_somebody_has_taken_away_is_shown_until_it_is_mended() {
    let (driver, memory) = driver();
    driver.create_network(&network()).await.unwrap();
    driver.create_endpoint(&endpoint(1)).await.unwrap();
    driver.join(&endpoint(1)).await.unwrap();
    driver.event_notify(&[created(2)]).await.unwrap();
    let before = driver.dataplane(NETWORK).await.unwrap();
    assert!(before.is_as_desired());
    let last = before.last.unwrap();
    assert_eq!((last.why, last.outcome), (Why::Event, Ok(3)));
    let (vni, mac) = (Vni::new(4096).unwrap(), mac(2));
    let step = Step::RemoveFdb { vni, mac };
    memory.apply(NETWORK, vec![step]).await.unwrap();

    let taken = driver.dataplane(NETWORK).await.unwrap();
    driver.mend(NETWORK, Why::Changed).await;
    let mended = driver.dataplane(NETWORK).await.unwrap();

    let differing: Vec<_> = taken.compared.iter().filter(|one| one.differs()).collect();
    assert_eq!(differing.len(), 1, "{differing:?}");
    assert_eq!(differing[0].desired.as_deref(), Some("192.0.2.2"));
    assert!(mended.is_as_desired());
    assert_eq!(mended.last.unwrap().outcome, Ok(1));
    assert_eq!((mended.reconciliations, mended.failures), (3, 0));
}

#[tokio::test]
async fn what_the_kernel_refused_is_shown() {
    let driver = Overlay::new(Underlay::assumed(vtep(1)), Arc::new(Broken));
    driver.create_network(&network()).await.unwrap();
    driver.create_endpoint(&endpoint(1)).await.unwrap();
    driver.join(&endpoint(1)).await.unwrap_err();

    let view = driver.dataplane(NETWORK).await.unwrap();

    let refused = view.last.unwrap().outcome.unwrap_err();
    assert!(refused.contains("changed from outside"), "{refused}");
    assert_eq!((view.reconciliations, view.failures), (1, 1));
}

#[tokio::test]
async fn networks_are_made_over_when_the_underlay_has_changed() {
    let moving = Arc::new(Moving::default());
    let driver = Overlay::new(Underlay::assumed(vtep(1)), moving.clone());
    driver.create_network(&network()).await.unwrap();
    driver.create_endpoint(&endpoint(1)).await.unwrap();
    driver.join(&endpoint(1)).await.unwrap();
    let mtus = || {
        let links = moving.memory.plane(NETWORK).links;
        links.values().map(Link::mtu).collect::<Vec<_>>()
    };
    assert_eq!(mtus(), [1450; 3]);

    // An address that is on no interface for a moment changes nothing.
    driver.follow_underlay().await;
    assert_eq!(mtus(), [1450; 3]);
    let now = Underlay {
        mtu: 9000,
        is_own: true,
        ..Underlay::assumed(vtep(1))
    };
    *moving.now.lock().unwrap() = Some(now);
    driver.follow_underlay().await;

    assert_eq!(mtus(), [8950; 3]);
    let last = driver.dataplane(NETWORK).await.unwrap().last.unwrap();
    assert_eq!(last.why, Why::Underlay);
}

#[test]
fn a_peer_with_one_address_is_written_as_nodes_that_know_of_one_only_read_it() {
    let one: PeerRecord = codec::decode(created(2).value.unwrap().as_bytes()).unwrap();
    let both = PeerRecord {
        others: vec![Prefix("fd00::2/64".parse().unwrap())],
        ..one.clone()
    };

    let parts = (one.address, one.mac, one.vtep);
    assert_eq!(codec::encode(&one), codec::encode(&parts));
    let again: PeerRecord = codec::decode(&codec::encode(&both)).unwrap();
    assert_eq!(again, both);
}

#[tokio::test]
async fn an_endpoint_without_an_address_in_the_network_is_refused() {
    let (driver, _memory) = driver();
    driver.create_network(&network()).await.unwrap();
    let stray = EndpointRecord {
        address: None,
        ..endpoint(1)
    };

    let refused = driver.create_endpoint(&stray).await;

    assert!(matches!(refused, Err(DriverError::Address { .. })));
}

#[tokio::test]
async fn a_failed_join_leaves_nothing() {
    let driver = Overlay::new(Underlay::assumed(vtep(1)), Arc::new(Broken));
    driver.create_network(&network()).await.unwrap();
    driver.create_endpoint(&endpoint(1)).await.unwrap();

    let refused = driver.join(&endpoint(1)).await;

    assert!(matches!(refused, Err(DriverError::Dataplane(_))));
    let network = driver.network(NETWORK).unwrap();
    let state = network.state.lock().await;
    assert!(!state.overlay.has_joined(EndpointId(1)));
}

#[test]
fn options_are_checked_and_encryption_is_not_left_out_silently() {
    let (driver, _memory) = driver();
    let check = |option: &str, value: &str| {
        let options = BTreeMap::from([(option.to_owned(), value.to_owned())]);
        driver.check_options(&options).is_ok()
    };

    assert!(check("mtu", "1400"));
    assert!(!check("mtu", "70000"));
    assert!(!check("mtu", "many"));
    assert!(!check("encrypted", ""));
    assert!(check("encrypted", "false"));
    assert!(check("vxlanid_list", "4096"));
}

const NETWORK: NetworkId = NetworkId(7);

/// A kernel that takes no step.
struct Broken;

impl Dataplane for Broken {
    fn list(&self, _: NetworkId) -> BoxFuture<'_, Result<Plane, DataplaneError>> {
        Box::pin(std::future::ready(Ok(Plane::default())))
    }

    fn apply(&self, network: NetworkId, _: Vec<Step>) -> BoxFuture<'_, Result<(), DataplaneError>> {
        Box::pin(std::future::ready(Err(DataplaneError::LinkGone(network))))
    }
}

/// Memory, over an underlay that changes.
#[derive(Default)]
struct Moving {
    memory: Memory,
    now: Mutex<Option<Underlay>>,
}

impl Dataplane for Moving {
    fn list(&self, network: NetworkId) -> BoxFuture<'_, Result<Plane, DataplaneError>> {
        self.memory.list(network)
    }

    fn apply(
        &self,
        network: NetworkId,
        steps: Vec<Step>,
    ) -> BoxFuture<'_, Result<(), DataplaneError>> {
        self.memory.apply(network, steps)
    }

    fn underlay(&self, _: Vtep) -> BoxFuture<'_, Result<Option<Underlay>, DataplaneError>> {
        let now = *self.now.lock().unwrap();
        Box::pin(std::future::ready(Ok(now)))
    }
}

fn driver() -> (Overlay, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    (
        Overlay::new(Underlay::assumed(vtep(1)), memory.clone()),
        memory,
    )
}

fn network() -> NetworkRecord {
    NetworkRecord {
        id: NETWORK,
        name: Name::new("app").unwrap(),
        driver: Name::new("overlay").unwrap(),
        options: BTreeMap::new(),
        subnets: vec![Subnet {
            prefix: Prefix("10.0.0.0/24".parse().unwrap()),
            gateway: "10.0.0.254".parse().unwrap(),
            vni: Vni::new(4096),
        }],
    }
}

fn endpoint(n: u8) -> EndpointRecord {
    EndpointRecord {
        id: EndpointId(u128::from(n)),
        network: NETWORK,
        name: Name::new(&format!("e{n}")).unwrap(),
        address: Some(Prefix(format!("10.0.0.{n}/24").parse().unwrap())),
        second: None,
        mac: mac(n),
    }
}

/// Another node tells of its endpoint `n`.
fn created(n: u8) -> TableEvent {
    let peer = PeerRecord {
        address: endpoint(n).address.unwrap(),
        mac: mac(n),
        vtep: vtep(n),
        others: Vec::new(),
    };
    TableEvent {
        network: NETWORK,
        table: table(),
        key: endpoint_key(EndpointId(u128::from(n))),
        previous: None,
        value: Some(Value::new(codec::encode(&peer)).unwrap()),
        owner: NodeId(u64::from(n)),
    }
}

fn vtep(n: u8) -> Vtep {
    Vtep(IpAddr::from([192, 0, 2, n]))
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}
