//! A network driver in Rust, complete: each endpoint that joins lights a beacon, a table entry, and the driver knows the beacons of
//! the other nodes.
//!
//! `cargo run -p cluster-tests --example beacon` makes it hear of one. A driver becomes part of the daemon where its registry is
//! made, `src/cli/up/drivers.rs`; `docs/drivers.md` says more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use weft::{
    core::model::{
        EndpointId, EndpointRecord, Key, Mac, Name, NetworkId, NetworkRecord, NodeId, TableEntry,
        TableName, Value,
    },
    driver::{
        Capability, Driver, DriverError, Joined, ObjectType, Origin, Registry, Scope, TableEvent,
        TableInterest,
    },
};

/// What a call answers later. `futures_util::future::BoxFuture` is the same type.
type Answer<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The table of beacons. Tables belong to a network, so the name need not say which.
const TABLE: &str = "beacons";

/// Where the other nodes' beacons are.
type Place = (NetworkId, Key);

/// The driver. What it knows of others is made of events alone; what it has itself, the daemon keeps.
#[derive(Default)]
struct Beacon {
    others: Mutex<BTreeMap<Place, Value>>,
}

impl Beacon {
    fn others(&self) -> MutexGuard<'_, BTreeMap<Place, Value>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Driver for Beacon {
    fn capability(&self) -> Capability {
        Capability {
            data_scope: Scope::Global,
            // Only then it takes part in tables.
            connectivity_scope: Scope::Global,
        }
    }

    fn check_options(&self, options: &BTreeMap<String, String>) -> Result<(), DriverError> {
        match options.get("colour").map(String::as_str) {
            None | Some("red" | "white") => Ok(()),
            Some(other) => Err(DriverError::Option {
                option: "colour".to_owned(),
                value: other.to_owned(),
                expected: "red or white",
            }),
        }
    }

    fn create_network<'a>(
        &'a self,
        network: &'a NetworkRecord,
    ) -> Answer<'a, Result<Vec<TableInterest>, DriverError>> {
        let interest = TableInterest {
            table: table(),
            object: ObjectType::Endpoint,
        };
        let checked = self.check_options(&network.options);
        now(checked.map(|()| vec![interest]))
    }

    fn delete_network(&self, network: NetworkId) -> Answer<'_, Result<(), DriverError>> {
        self.others().retain(|(of, _), _| *of != network);
        now(Ok(()))
    }

    fn create_endpoint<'a>(&'a self, _: &'a EndpointRecord) -> Answer<'a, Result<(), DriverError>> {
        now(Ok(()))
    }

    fn delete_endpoint(&self, _: NetworkId, _: EndpointId) -> Answer<'_, Result<(), DriverError>> {
        now(Ok(()))
    }

    fn join<'a>(&'a self, endpoint: &'a EndpointRecord) -> Answer<'a, Result<Joined, DriverError>> {
        let beacon = TableEntry {
            table: table(),
            key: key_of(endpoint.id),
            value: Value::new(endpoint.mac.0.to_vec()).expect("6 bytes are a value"),
        };
        now(Ok(Joined {
            // It lives as long as the endpoint is joined; nobody has to take it back.
            entries: vec![beacon],
            ..Joined::default()
        }))
    }

    fn leave(&self, _: NetworkId, _: EndpointId) -> Answer<'_, Result<(), DriverError>> {
        now(Ok(()))
    }

    fn event_notify<'a>(&'a self, events: &'a [TableEvent]) -> Answer<'a, Result<(), DriverError>> {
        let mut others = self.others();
        for event in events {
            let place = (event.network, event.key.clone());
            match &event.value {
                Some(value) => others.insert(place, value.clone()),
                None => others.remove(&place),
            };
        }
        now(Ok(()))
    }

    fn decode_table_entry(
        &self,
        _: &TableName,
        key: &Key,
        value: &Value,
    ) -> Option<(EndpointId, BTreeMap<String, String>)> {
        let id = key.as_bytes().try_into().map(u128::from_be_bytes).ok()?;
        let mac = value.as_bytes().try_into().map(Mac).ok()?;
        let says = BTreeMap::from([("beacon".to_owned(), mac.to_string())]);
        Some((EndpointId(id), says))
    }

    fn inspect(&self, network: NetworkId) -> Answer<'_, serde_json::Value> {
        let others = self.others();
        let here = others.keys().filter(|(of, _)| *of == network).count();
        now(serde_json::json!({ "beacons": here }))
    }
}

fn table() -> TableName {
    TableName::new(TABLE).expect("letters are a table name")
}

fn key_of(endpoint: EndpointId) -> Key {
    Key::new(endpoint.0.to_be_bytes().to_vec()).expect("16 bytes are a key")
}

/// Lets two nodes' drivers do what the daemon has them do.
#[expect(clippy::print_stdout, reason = "it is an example")]
fn main() {
    let registry = Registry::new();
    let (near, far) = (Arc::new(Beacon::default()), Arc::new(Beacon::default()));
    registry
        .register("beacon", Origin::BuiltIn, near.clone())
        .expect("the registry is empty");
    let network = NetworkId(1);
    let endpoint = EndpointRecord {
        id: EndpointId(7),
        network,
        name: Name::new("web").expect("letters are a name"),
        address: None,
        mac: Mac([2, 0, 0, 0, 0, 7]),
    };

    let joined = done(near.join(&endpoint)).expect("it refuses nothing");
    let lit: Vec<TableEvent> = joined
        .entries
        .into_iter()
        .map(|entry| TableEvent {
            network,
            table: entry.table,
            key: entry.key,
            previous: None,
            value: Some(entry.value),
            owner: NodeId(1),
        })
        .collect();
    done(far.event_notify(&lit)).expect("it refuses nothing");

    let seen = done(far.inspect(network));
    println!("the other node's driver sees {seen}");
    assert_eq!(seen["beacons"], 1);
}

/// This driver waits for nothing, so its answers are there at once.
fn done<T>(mut answer: Answer<'_, T>) -> T {
    match answer
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("it waits for nothing"),
    }
}
