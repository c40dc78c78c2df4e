//! The contract between Weft and a network driver.
//!
//! Every call may be made again: creating what exists as it is asked for, deleting what is gone, joining what has joined
//! and leaving what has left all succeed. A restarted node makes all its calls anew.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use futures_util::future::{self, BoxFuture};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::DataplaneView;
use crate::{
    core::model::{
        EndpointId, EndpointRecord, Key, NetworkId, NetworkRecord, NodeId, Prefix, Subnet,
        TableEntry, TableName, Value,
    },
    dataplane::DataplaneError,
};

/// How far something reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One node.
    Local,
    /// Every node of the cluster.
    Global,
}

/// What a driver can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Capability {
    /// Where its networks' resources are allocated.
    pub data_scope: Scope,
    /// How far its endpoints reach each other. Only a driver with global connectivity takes part in tables.
    pub connectivity_scope: Scope,
}

/// What the entries of a table are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectType {
    /// An endpoint.
    Endpoint = 1,
    /// A network.
    Network = 2,
    /// Something that only the driver knows.
    Opaque = 3,
}

/// Why a number is no object type. The driver sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is no object type: 1 (endpoint), 2 (network) and 3 (opaque) are")]
pub struct ObjectTypeError(u32);

impl TryFrom<u32> for ObjectType {
    type Error = ObjectTypeError;

    fn try_from(number: u32) -> Result<Self, ObjectTypeError> {
        match number {
            1 => Ok(Self::Endpoint),
            2 => Ok(Self::Network),
            3 => Ok(Self::Opaque),
            other => Err(ObjectTypeError(other)),
        }
    }
}

/// A table that a driver wants to hear of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableInterest {
    /// The table.
    pub table: TableName,
    /// What its entries are about.
    pub object: ObjectType,
}

/// One change of an entry that another node owns.
///
/// No previous value: the entry is new. No value: it is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableEvent {
    /// The network.
    pub network: NetworkId,
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Key,
    /// The value the driver was told of before.
    pub previous: Option<Value>,
    /// The value now.
    pub value: Option<Value>,
    /// The node that owns the entry, or owned it.
    pub owner: NodeId,
}

/// Where a driver is in the events of a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Which stream: a number drawn when it begins. Another one begins with all that is there.
    pub stream: u64,
    /// The last event taken, counted from 1; nothing yet: 0.
    pub revision: u64,
}

/// Events of one network, in order and without a gap: the first has the revision after that of `after`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventBatch<'a> {
    /// The network.
    pub network: NetworkId,
    /// What comes before. At revision 0 the driver must forget all entries that it has heard of.
    pub after: Position,
    /// The events.
    pub events: &'a [TableEvent],
}

impl EventBatch<'_> {
    /// Returns the revision of the last event.
    pub fn last(&self) -> u64 {
        self.after.revision + self.events.len() as u64
    }
}

/// How much of a batch a driver has taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The last event it has taken. Less than the batch's last: the rest is given again. Less than what came before the batch:
    /// it has lost what it knew.
    pub through: u64,
    /// How long it wants to be left alone.
    pub pause: Option<Duration>,
}

/// What an entry means, for a person.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Decoded {
    /// The endpoint that it is about, if it is about one.
    pub endpoint: Option<EndpointId>,
    /// What it says, by name.
    pub says: BTreeMap<String, String>,
}

/// How the sandbox's interface comes to be: the driver's link is moved in and named `prefix` and a number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InterfaceName {
    /// The link that the driver made.
    pub source: String,
    /// What its name inside the sandbox begins with, for example `eth`.
    pub prefix: String,
}

/// A route for the sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Route {
    /// Where it leads.
    pub destination: Prefix,
    /// The next hop; nothing when the destination is on the link.
    pub via: Option<IpAddr>,
}

/// A driver's answer to a join.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Joined {
    /// The interface; nothing for a driver that gives none.
    pub interface: Option<InterfaceName>,
    /// The default gateways, at most one for each family.
    pub gateways: Vec<IpAddr>,
    /// More routes.
    pub routes: Vec<Route>,
    /// The table entries that live as long as the endpoint is joined.
    pub entries: Vec<TableEntry>,
}

/// Where a node of the cluster is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodePlace {
    /// The address that other nodes reach it at.
    pub address: IpAddr,
    /// It is this node.
    pub is_self: bool,
}

/// A sandbox that a user has named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SandboxPlace {
    /// The path of its network namespace.
    pub path: PathBuf,
    /// The name its interface gets; nothing: the first that is free.
    pub name: Option<String>,
}

/// Why a driver did not do it. It left nothing behind, so the caller may try again.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The driver was never told of the network.
    #[error("the driver does not know network {0}")]
    NoNetwork(NetworkId),
    /// A network with that id and other properties exists.
    #[error("the driver has another network {0}")]
    NetworkExists(NetworkId),
    /// The driver was never told of the endpoint.
    #[error("the driver does not know endpoint {0}")]
    NoEndpoint(EndpointId),
    /// An endpoint with that id and other properties exists.
    #[error("the driver has another endpoint {0}")]
    EndpointExists(EndpointId),
    /// Whoever creates the network must write the option differently.
    #[error("option {option}={value}: {expected}")]
    Option {
        /// The option's name.
        option: String,
        /// The value given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A subnet is not one that the driver can carry.
    #[error("subnet {prefix}: {expected}")]
    Subnet {
        /// The subnet.
        prefix: Prefix,
        /// What would be right.
        expected: &'static str,
    },
    /// The endpoint's address is in none of the network's subnets, or it has none.
    #[error("endpoint {endpoint} has no address in a subnet of network {network}")]
    Address {
        /// The endpoint.
        endpoint: EndpointId,
        /// The network.
        network: NetworkId,
    },
    /// The network's driver makes no interface that could be moved into a sandbox.
    #[error("the driver of network {0} gives endpoints no interface")]
    NoInterface(NetworkId),
    /// The endpoint cannot be moved there; whoever named the sandbox must act.
    #[error("{0}")]
    Sandbox(DataplaneError),
    /// Something of somebody else's on this host is in the way; the operator must act.
    #[error("{0}")]
    Taken(DataplaneError),
    /// The kernel did not take it.
    #[error("data plane: {0}")]
    Dataplane(#[from] DataplaneError),
    /// A remote driver could not be reached; it passes when its process is back.
    #[error("driver {driver} does not answer: {reason}")]
    Unreachable {
        /// The driver.
        driver: String,
        /// Why, in the transport's words.
        reason: String,
    },
    /// A remote driver's process is another one than before, and knows nothing yet; it passes once it was told everything.
    #[error("driver {driver} was restarted, and is being told of its networks again")]
    Restarted {
        /// The driver.
        driver: String,
    },
    /// A remote driver refused; the text is its own.
    #[error("driver {driver}: {reason}")]
    Refused {
        /// The driver.
        driver: String,
        /// Its words.
        reason: String,
    },
    /// A remote driver answered something that the protocol does not allow; its author must act.
    #[error("driver {driver} broke the protocol: {reason}")]
    Protocol {
        /// The driver.
        driver: String,
        /// What was wrong with the answer.
        reason: String,
    },
}

/// A network driver.
///
/// **Invariant:** events of one network come in order, each exactly once, unless a call failed: then the same batch is
/// given again. Calls for one endpoint never overlap; everything else may.
pub trait Driver: Send + Sync {
    /// Says what it can do.
    fn capability(&self) -> Capability;

    /// Checks a network that somebody wants to create, before the leader is asked. `create_network` checks again.
    fn check_options(&self, options: &BTreeMap<String, String>) -> Result<(), DriverError>;

    /// Takes a network, and says in which of its tables the driver is interested.
    fn create_network<'a>(
        &'a self,
        network: &'a NetworkRecord,
    ) -> BoxFuture<'a, Result<Vec<TableInterest>, DriverError>>;

    /// Forgets a network and all that is in it.
    fn delete_network(&self, network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Takes an endpoint of this node, and returns the addresses that it gives it: of families of which the endpoint has none only,
    /// one each. Most drivers give none.
    fn create_endpoint<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Vec<Prefix>, DriverError>>;

    /// Forgets an endpoint; it leaves first if it has joined.
    fn delete_endpoint(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Connects an endpoint, and says which table entries tell others of it.
    fn join<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Joined, DriverError>>;

    /// Disconnects an endpoint.
    fn leave(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Lets an endpoint that has joined reach the outside, through the gateway that the driver named. Leaving takes it back.
    fn connect_outside<'a>(
        &'a self,
        _endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(future::ready(Ok(())))
    }

    /// Takes back a join that a daemon which died may have asked for and never wrote down. Only of a driver that may be older.
    fn forget_join(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        self.leave(network, endpoint)
    }

    /// As [`Self::forget_join`], an endpoint.
    fn forget_endpoint(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        self.delete_endpoint(network, endpoint)
    }

    /// Takes back a network that was removed while no daemon was there to say so.
    fn forget_network(&self, network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        self.delete_network(network)
    }

    /// Moves an endpoint that has joined into a sandbox; returns the name that its interface has there.
    fn enter<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
        _joined: &'a Joined,
        _sandbox: &'a SandboxPlace,
    ) -> BoxFuture<'a, Result<String, DriverError>> {
        let refused = DriverError::NoInterface(endpoint.network);
        Box::pin(std::future::ready(Err(refused)))
    }

    /// Waits until an endpoint's sandbox is gone although the endpoint has not left, and returns the endpoint: it leaves now.
    fn vanished(&self, _network: NetworkId) -> BoxFuture<'_, EndpointId> {
        Box::pin(std::future::pending())
    }

    /// Hears which nodes the cluster has now, this one included: again whenever that changes. Only of a driver whose endpoints
    /// reach other nodes.
    fn nodes<'a>(&'a self, _nodes: &'a [NodePlace]) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(future::ready(Ok(())))
    }

    /// Hears that all that was there at the start has been told: every endpoint of this node that has joined, every entry
    /// of others. What a driver still holds of a former run, and was not told of, is stale.
    fn settled(&self, _network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Takes changes of other nodes' entries in the tables of interest, in order.
    fn event_notify<'a>(
        &'a self,
        events: &'a [TableEvent],
    ) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Says for a person what an entry means: which endpoint, and what of it.
    fn decode_table_entry(
        &self,
        table: &TableName,
        key: &Key,
        value: &Value,
    ) -> Option<(EndpointId, BTreeMap<String, String>)>;

    /// Shows the driver's state of a network to a person.
    fn inspect(&self, network: NetworkId) -> BoxFuture<'_, serde_json::Value>;

    /// Says where it listens; nothing for one that is built in.
    fn address(&self) -> Option<String> {
        None
    }

    /// Shows the part of the kernel that it keeps for a network; nothing for a driver that keeps none, or does not say.
    fn dataplane(&self, _network: NetworkId) -> BoxFuture<'_, Option<DataplaneView>> {
        Box::pin(std::future::ready(None))
    }

    /// Says what the driver is, apart from its networks, for a person.
    fn describe(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes numbered events. A driver that counts them may take a part, or go on where it was; the others take all or none.
    fn event_batch<'a>(
        &'a self,
        batch: EventBatch<'a>,
    ) -> BoxFuture<'a, Result<Progress, DriverError>> {
        Box::pin(async move {
            self.event_notify(batch.events).await?;
            let through = batch.last();
            Ok(Progress {
                through,
                pause: None,
            })
        })
    }

    /// Says where it was in the events of a network, if it has kept what it heard.
    fn position(&self, _network: NetworkId) -> Option<Position> {
        None
    }

    /// Returns whether it may have been there before this daemon was, and still do what it was told then.
    fn is_older_than_us(&self) -> bool {
        false
    }

    /// As [`Self::decode_table_entry`], for a driver that must ask somebody.
    fn decode<'a>(
        &'a self,
        entry: &'a TableEntry,
    ) -> BoxFuture<'a, Result<Option<Decoded>, DriverError>> {
        let TableEntry { table, key, value } = entry;
        let decoded = self.decode_table_entry(table, key, value);
        let decoded = decoded.map(|(endpoint, says)| Decoded {
            endpoint: Some(endpoint),
            says,
        });
        Box::pin(future::ready(Ok(decoded)))
    }

    /// Is cancelled when the driver has lost all that it was told. Then the registry has another one of its name.
    fn life(&self) -> CancellationToken {
        CancellationToken::new()
    }

    /// Looks whether the driver is still the one that was told; returns when it is not. Run it beside a network.
    fn watch_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(future::pending())
    }
}

/// Checks that a gateway belongs to its subnet: same family, inside the prefix.
pub(super) fn check_subnet(subnet: &Subnet) -> Result<(), DriverError> {
    if subnet.prefix.0.contains(&subnet.gateway) {
        return Ok(());
    }
    Err(DriverError::Subnet {
        prefix: subnet.prefix,
        expected: "its gateway must be an address inside it",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_object_type_is_refused() {
        assert_eq!(ObjectType::try_from(3), Ok(ObjectType::Opaque));
        assert_eq!(ObjectType::try_from(0), Err(ObjectTypeError(0)));
        assert_eq!(ObjectType::try_from(4), Err(ObjectTypeError(4)));
    }

    #[test]
    fn a_gateway_outside_its_subnet_or_of_another_family_is_refused() {
        let subnet = |gateway: &str| Subnet {
            prefix: Prefix("10.0.0.0/24".parse().unwrap()),
            gateway: gateway.parse().unwrap(),
            vni: None,
        };

        assert!(check_subnet(&subnet("10.0.0.1")).is_ok());
        assert!(check_subnet(&subnet("10.0.1.1")).is_err());
        assert!(check_subnet(&subnet("fd00::1")).is_err());
    }
}
