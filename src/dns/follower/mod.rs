//! Keeps the names in step with the network DB: the cluster's table `networks`, and the tables `endpoints` and `names` of
//! every network that this node carries.
//!
//! **Invariant:** what is known here follows from what is visible there, not from which changes were heard: it begins with a
//! list, and whenever changes were lost it lists again. Its size is that of those tables; nothing is queued but endpoints to
//! which the way is being laid.

mod coming;

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::coming::Coming;
use super::{Askers, Laid, NameTable, Service, Upstream, serve};
use crate::{
    core::{
        allocator::NETWORKS_TABLE,
        model::{
            EndpointId, EndpointRecord, Key, NAMES_TABLE, NamesRecord, NetworkId, NetworkRecord,
            TableName, Value,
        },
        watch::Filter,
        wire::codec,
    },
    runtime::{Handle, Sockets, Stopped, WatchEvent},
};

/// Where the endpoints of a network are that have joined.
const ENDPOINTS_TABLE: &str = "endpoints";

/// Answers for the names that a node knows, until `stop` or until the node itself stops.
pub async fn run(
    handle: Handle,
    sockets: Sockets,
    (askers, upstream, ttl): (watch::Receiver<Askers>, Upstream, Duration),
    laid: watch::Receiver<Laid>,
    stop: CancellationToken,
) {
    let (names, known) = watch::channel(NameTable::default());
    let service = Service {
        names: known,
        askers,
        upstream,
        ttl,
    };
    tokio::select! {
        () = serve(sockets.udp, sockets.tcp, service, stop) => {}
        Err(Stopped) = follow(&handle, &names, laid) => {}
    }
}

/// Follows the tables until the node stops.
async fn follow(
    handle: &Handle,
    names: &watch::Sender<NameTable>,
    laid: watch::Receiver<Laid>,
) -> Result<(), Stopped> {
    let of_networks = Filter {
        network: Some(NetworkId::CLUSTER),
        table: Some(table(NETWORKS_TABLE)),
        ..Filter::default()
    };
    let of_endpoints = Filter {
        table: Some(table(ENDPOINTS_TABLE)),
        ..Filter::default()
    };
    let of_names = Filter {
        table: Some(table(NAMES_TABLE)),
        ..Filter::default()
    };
    let mut networks = handle.watch(of_networks, None);
    let mut aliases = handle.watch(of_names, None);
    let mut endpoints = handle.watch(of_endpoints, None);
    let mut coming = Coming::new(laid);
    loop {
        tokio::select! {
            event = networks.next() => {
                let event = event?;
                names.send_modify(|names| handle_networks(names, event));
            }
            event = endpoints.next() => {
                let event = event?;
                names.send_if_modified(|names| handle_endpoints(names, &mut coming, event));
            }
            come = coming.next() => {
                names.send_modify(|names| come.into_iter().for_each(|record| names.put_endpoint(record)));
            }
            event = aliases.next() => {
                let event = event?;
                names.send_modify(|names| handle_aliases(names, event));
            }
        }
    }
}

fn handle_networks(names: &mut NameTable, event: WatchEvent) {
    match event {
        WatchEvent::Snapshot { entries, .. } => {
            let records = entries.iter();
            let records = records.filter_map(|entry| network(&entry.key, &entry.value));
            names.set_networks(records.collect());
        }
        WatchEvent::Change(revised) => {
            let change = revised.change;
            match change.value.and_then(|value| network(&change.key, &value)) {
                Some(record) => names.put_network(record),
                None => {
                    if let Ok(id) = change.key.as_bytes().try_into() {
                        names.remove_network(NetworkId(u32::from_be_bytes(id)));
                    }
                }
            }
        }
        // What a network has not brought yet comes as changes; after a lag, a snapshot follows.
        WatchEvent::State { .. } | WatchEvent::Lagged => {}
    }
}

/// Returns whether the names are others now.
fn handle_endpoints(names: &mut NameTable, coming: &mut Coming, event: WatchEvent) -> bool {
    match event {
        WatchEvent::Snapshot { entries, .. } => {
            let records = entries.iter();
            let records =
                records.filter_map(|entry| endpoint(entry.network, &entry.key, &entry.value));
            names.set_endpoints(records.collect());
            coming.clear();
            true
        }
        WatchEvent::Change(revised) => {
            let change = revised.change;
            let value = change.value;
            match value.and_then(|value| endpoint(change.network, &change.key, &value)) {
                Some(record) => {
                    coming.add(record, revised.revision);
                    false
                }
                None => {
                    if let Some(id) = endpoint_of(&change.key) {
                        coming.forget(id);
                        names.remove_endpoint(id);
                    }
                    true
                }
            }
        }
        // What a network has not brought yet comes as changes; after a lag, a snapshot follows.
        WatchEvent::State { .. } | WatchEvent::Lagged => false,
    }
}

fn handle_aliases(names: &mut NameTable, event: WatchEvent) {
    match event {
        WatchEvent::Snapshot { entries, .. } => {
            let all = entries.iter().filter_map(|entry| {
                let record: NamesRecord = readable(codec::decode(entry.value.as_bytes()))?;
                Some((entry.network, endpoint_of(&entry.key)?, record.names))
            });
            names.set_aliases(all.collect());
        }
        WatchEvent::Change(revised) => {
            let change = revised.change;
            let Some(id) = endpoint_of(&change.key) else {
                return;
            };
            let record = change.value;
            let record: Option<NamesRecord> =
                record.and_then(|value| readable(codec::decode(value.as_bytes())));
            match record {
                Some(record) => names.put_aliases(change.network, id, record.names),
                None => names.remove_aliases(id),
            }
        }
        // What a network has not brought yet comes as changes; after a lag, a snapshot follows.
        WatchEvent::State { .. } | WatchEvent::Lagged => {}
    }
}

fn endpoint_of(key: &Key) -> Option<EndpointId> {
    let bytes = key.as_bytes().try_into().ok()?;
    Some(EndpointId(u128::from_be_bytes(bytes)))
}

/// Returns the network of an entry; nothing if it is not what its key says.
fn network(key: &Key, value: &Value) -> Option<NetworkRecord> {
    let record: NetworkRecord = readable(codec::decode(value.as_bytes()))?;
    (key.as_bytes() == record.id.0.to_be_bytes()).then_some(record)
}

/// Returns the endpoint of an entry; nothing if it is not what its key and its network say.
fn endpoint(network: NetworkId, key: &Key, value: &Value) -> Option<EndpointRecord> {
    let record: EndpointRecord = readable(codec::decode(value.as_bytes()))?;
    let is_itself = key.as_bytes() == record.id.0.to_be_bytes() && record.network == network;
    is_itself.then_some(record)
}

fn readable<T>(decoded: Result<T, codec::CodecError>) -> Option<T> {
    decoded
        .inspect_err(
            |error| tracing::warn!(%error, "a record cannot be read, so its name is not known"),
        )
        .ok()
}

fn table(text: &str) -> TableName {
    TableName::new(text).expect("letters are a table name")
}

#[cfg(test)]
mod tests;
