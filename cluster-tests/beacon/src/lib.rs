//! A network driver in Rust, complete: each endpoint that joins lights a beacon, a table entry, and the driver knows the beacons of
//! the other nodes. Each network has a colour, which the driver's allocator chooses once for the whole cluster.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use weft::{
    core::model::{
        EndpointId, EndpointRecord, Key, Mac, NetworkId, NetworkRecord, Prefix, TableEntry,
        TableName, Value,
    },
    driver::{
        Allocation, Capability, Driver, DriverError, Joined, NetworkAllocator, ObjectType, Options,
        Scope, TableEvent, TableInterest,
    },
};

/// The table of beacons. Tables belong to a network, so the name need not say which.
const TABLE: &str = "beacons";
/// The option of a network with its colour.
const COLOUR: &str = "colour";
const COLOURS: [&str; 3] = ["red", "white", "green"];

type Answer<'a, T> = BoxFuture<'a, Result<T, DriverError>>;

/// The driver, one on every node. What it knows of others is made of events alone; what it has itself, the daemon keeps.
#[derive(Default)]
pub struct Beacon {
    others: Mutex<BTreeMap<(NetworkId, Key), Value>>,
}

impl Beacon {
    fn others(&self) -> MutexGuard<'_, BTreeMap<(NetworkId, Key), Value>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Beacon {
    fn capability(&self) -> Capability {
        Capability {
            data_scope: Scope::Global,
            // Only then it takes part in tables.
            connectivity_scope: Scope::Global,
        }
    }

    fn check_options(&self, options: &Options) -> Result<(), DriverError> {
        match options.get(COLOUR) {
            Some(other) if !COLOURS.contains(&other.as_str()) => Err(DriverError::Option {
                option: COLOUR.to_owned(),
                value: other.clone(),
                expected: "red, white or green",
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn create_network<'a>(&'a self, network: &'a NetworkRecord) -> Answer<'a, Vec<TableInterest>> {
        let interest = TableInterest {
            table: table(),
            object: ObjectType::Endpoint,
        };
        let checked = self.check_options(&network.options);
        Box::pin(ready(checked.map(|()| vec![interest])))
    }

    fn delete_network(&self, network: NetworkId) -> Answer<'_, ()> {
        self.others().retain(|(of, _), _| *of != network);
        Box::pin(ready(Ok(())))
    }

    fn create_endpoint<'a>(&'a self, _: &'a EndpointRecord) -> Answer<'a, Vec<Prefix>> {
        // It has its addresses from Weft: there is none to give.
        Box::pin(ready(Ok(Vec::new())))
    }

    fn delete_endpoint(&self, _: NetworkId, _: EndpointId) -> Answer<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn join<'a>(&'a self, endpoint: &'a EndpointRecord) -> Answer<'a, Joined> {
        let beacon = TableEntry {
            table: table(),
            key: Key::new(endpoint.id.0.to_be_bytes().to_vec()).expect("16 bytes are a key"),
            value: Value::new(endpoint.mac.0.to_vec()).expect("6 bytes are a value"),
        };
        let joined = Joined {
            // It lives as long as the endpoint is joined; nobody has to take it back.
            entries: vec![beacon],
            ..Joined::default()
        };
        Box::pin(ready(Ok(joined)))
    }

    fn leave(&self, _: NetworkId, _: EndpointId) -> Answer<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn event_notify<'a>(&'a self, events: &'a [TableEvent]) -> Answer<'a, ()> {
        let mut others = self.others();
        for event in events {
            let place = (event.network, event.key.clone());
            match &event.value {
                Some(value) => others.insert(place, value.clone()),
                None => others.remove(&place),
            };
        }
        Box::pin(ready(Ok(())))
    }

    fn decode_table_entry(
        &self,
        _: &TableName,
        key: &Key,
        value: &Value,
    ) -> Option<(EndpointId, Options)> {
        let id = key.as_bytes().try_into().map(u128::from_be_bytes).ok()?;
        let mac = value.as_bytes().try_into().map(Mac).ok()?;
        let says = Options::from([("beacon".to_owned(), mac.to_string())]);
        Some((EndpointId(id), says))
    }

    fn inspect(&self, network: NetworkId) -> BoxFuture<'_, serde_json::Value> {
        let others = self.others();
        let here = others.keys().filter(|(of, _)| *of == network).count();
        Box::pin(ready(serde_json::json!({ "beacons": here })))
    }
}

/// The allocator, which only the leader's node asks: the colours take turns, unless a person has chosen one.
#[derive(Default)]
pub struct Colours {
    given: Mutex<BTreeMap<NetworkId, String>>,
}

impl Colours {
    fn given(&self) -> MutexGuard<'_, BTreeMap<NetworkId, String>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NetworkAllocator for Colours {
    fn needs(&self) -> Allocation {
        Allocation {
            subnets: true,
            vxlan: false,
        }
    }

    fn is_asked(&self) -> bool {
        true
    }

    fn allocate<'a>(&'a self, network: &'a NetworkRecord) -> Answer<'a, Options> {
        let mut given = self.given();
        let next = COLOURS[given.len() % COLOURS.len()].to_owned();
        let chosen = network.options.get(COLOUR).cloned();
        let colour = given.entry(network.id).or_insert(chosen.unwrap_or(next));
        let options = Options::from([(COLOUR.to_owned(), colour.clone())]);
        Box::pin(ready(Ok(options)))
    }

    fn restore<'a>(&'a self, network: &'a NetworkRecord) -> Answer<'a, ()> {
        if let Some(colour) = network.options.get(COLOUR) {
            self.given().insert(network.id, colour.clone());
        }
        Box::pin(ready(Ok(())))
    }

    fn free(&self, network: NetworkId) -> Answer<'_, ()> {
        self.given().remove(&network);
        Box::pin(ready(Ok(())))
    }

    fn holds(&self, network: NetworkId) -> bool {
        self.given().contains_key(&network)
    }
}

fn table() -> TableName {
    TableName::new(TABLE).expect("letters are a table name")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use weft::{
        core::model::{Name, NodeId},
        driver::{Origin, Registry},
    };

    use super::*;

    const NETWORK: NetworkId = NetworkId(1);

    #[test]
    fn a_beacon_is_seen_by_the_other_node_until_it_goes() {
        let (near, far) = (Beacon::default(), Beacon::default());
        let endpoint = EndpointRecord {
            id: EndpointId(7),
            network: NETWORK,
            name: name("web"),
            address: None,
            second: None,
            mac: Mac([2, 0, 0, 0, 0, 7]),
        };
        let lit = done(near.join(&endpoint)).unwrap().entries.remove(0);
        let event = |previous: Option<&Value>, value: Option<&Value>| TableEvent {
            network: NETWORK,
            table: lit.table.clone(),
            key: lit.key.clone(),
            previous: previous.cloned(),
            value: value.cloned(),
            owner: NodeId(1),
        };

        done(far.event_notify(&[event(None, Some(&lit.value))])).unwrap();
        let seen = done(far.inspect(NETWORK));
        done(far.event_notify(&[event(Some(&lit.value), None)])).unwrap();

        assert_eq!(seen["beacons"], 1);
        assert_eq!(done(far.inspect(NETWORK))["beacons"], 0);
        let (decoded, _) = far
            .decode_table_entry(&lit.table, &lit.key, &lit.value)
            .unwrap();
        assert_eq!(decoded, endpoint.id);
    }

    #[test]
    fn both_are_registered_under_one_name_and_colours_take_turns() {
        let registry = Registry::new();
        let (driver, colours) = (Arc::<Beacon>::default(), Arc::<Colours>::default());
        let origin = Origin::BuiltIn;
        registry.register("beacon", origin, driver).unwrap();
        registry
            .register_allocator("beacon", origin, colours)
            .unwrap();
        let allocator = registry.allocator(&name("beacon")).unwrap();
        let colour = |id: u32| {
            let network = NetworkRecord {
                id: NetworkId(id),
                name: name("app"),
                driver: name("beacon"),
                options: Options::new(),
                subnets: Vec::new(),
            };
            done(allocator.allocate(&network)).unwrap()[COLOUR].clone()
        };

        assert_eq!([colour(1), colour(2), colour(1)], ["red", "white", "red"]);
    }

    #[test]
    fn the_page_shows_what_is_built() {
        let page = include_str!("../../../docs/drivers.md");
        let source = include_str!("lib.rs");
        let (shown, _) = source.split_once("\n#[cfg(test)]").unwrap();

        let block = format!("```rust\n{shown}```");

        assert!(page.contains(&block), "copy lib.rs into docs/drivers.md");
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// These wait for nothing, so their answers are there at once.
    fn done<T>(answer: BoxFuture<'_, T>) -> T {
        answer.now_or_never().unwrap()
    }
}
