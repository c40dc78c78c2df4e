//! Remote drivers: plugins that speak libnetwork's network driver protocol, JSON over HTTP, and maybe the table-driver
//! protocol beyond it.
//!
//! The protocol knows no second attempt: a plugin may refuse to make what it has made. So what a plugin has done since this
//! daemon started is remembered here, and answered without asking it again. A call of which it is not known whether it was
//! done is undone, at once or before the next one of its kind.
//!
//! **Invariant:** a [`Remote`] is one life of a plugin. When its process is another one, or gone, the remote's life ends and
//! the registry asks for the plugin anew: a plugin that was restarted knows nothing of what it was told before.

mod allocator;
mod ipam;
mod link;
mod message;
mod nodes;
mod plugins;
mod sandbox;
mod steps;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

pub use ipam::RemoteIpam;
pub use plugins::Plugins;

use self::{
    allocator::RemoteAllocator,
    link::{Link, says_it_is_there},
    message::{Capabilities, DecodeReply, EndpointCall, EventReply, NetworkCall},
    tables::Interests,
};
use super::{
    Capability, Decoded, Driver, DriverError, EventBatch, Found, Joined, NetworkAllocator,
    NodePlace, Position, Progress, SandboxPlace, Scope, TableEvent, TableInterest,
};
use crate::{
    core::model::{
        EndpointId, EndpointRecord, Key, Name, NetworkId, NetworkRecord, Prefix, TableEntry,
        TableName, Value,
    },
    dataplane::{Dataplane, Memory},
    plugin::{CallError, Client},
};

/// How often it is looked whether a plugin is still the same process.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a plugin has done in this life of it.
#[derive(Default)]
struct Done {
    networks: BTreeMap<NetworkId, (NetworkRecord, Interests)>,
    /// With the addresses that the plugin has given them itself.
    endpoints: BTreeMap<EndpointId, (EndpointRecord, Vec<Prefix>)>,
    joined: BTreeMap<EndpointId, Joined>,
    /// Of those that have joined: which reach the outside.
    outside: BTreeSet<EndpointId>,
}

/// What becomes of what a plugin says that it has already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    /// It stays, and its answer is not needed.
    Stays,
    /// It is undone and made anew, since its answer is needed.
    Anew,
}

/// A driver in another process.
pub struct Remote {
    link: Arc<Link>,
    capability: Capability,
    has_tables: bool,
    /// Whether it says which networks need no gateway's address.
    checks_gateways: bool,
    done: Mutex<Done>,
    /// The nodes that it was told of. Held while it is told.
    told: tokio::sync::Mutex<BTreeSet<NodePlace>>,
    /// What moves the links that it makes.
    links: Arc<dyn Dataplane>,
}

impl Remote {
    /// Asks a plugin what it can do. One that does not say is no driver.
    pub async fn connect(
        name: &Name,
        client: Client,
        has_tables: bool,
    ) -> Result<Self, DriverError> {
        let link = Link::new(name, "NetworkDriver", client).await;
        let said: Capabilities = link.call("GetCapabilities", &()).await?;
        let scope = |text: &str| match text {
            "local" => Ok(Scope::Local),
            "global" => Ok(Scope::Global),
            other => {
                let wrong = format!("scope {other:?}: local or global is expected");
                Err(link.broke("GetCapabilities", &wrong))
            }
        };
        let data_scope = scope(&said.scope)?;
        let connectivity_scope = match said.connectivity_scope.as_str() {
            "" => data_scope,
            other => scope(other)?,
        };
        Ok(Self {
            capability: Capability {
                data_scope,
                connectivity_scope,
            },
            link: Arc::new(link),
            has_tables,
            checks_gateways: said.gw_alloc_checker,
            done: Mutex::default(),
            told: tokio::sync::Mutex::default(),
            links: Arc::new(Memory::default()),
        })
    }

    /// Has `links` move the links that the plugin makes; without, its endpoints enter no sandboxes.
    pub(super) fn moved_by(self, links: Arc<dyn Dataplane>) -> Self {
        Self { links, ..self }
    }

    /// Returns what the plugin is: a driver, and an allocator too if its data reaches the whole cluster.
    fn found(self) -> Found {
        let allocator: Option<Arc<dyn NetworkAllocator>> = match self.capability.data_scope {
            Scope::Global => Some(Arc::new(RemoteAllocator::new(self.link.clone()))),
            Scope::Local => None,
        };
        Found {
            driver: Arc::new(self),
            allocator,
        }
    }

    /// Makes a call that leaves something behind. Where it is not known whether it has, it is undone.
    async fn make<T: DeserializeOwned>(
        &self,
        (method, request): (&str, &impl Serialize),
        (undoing, what): (&'static str, &impl Serialize),
        held: Held,
    ) -> Result<T, DriverError> {
        self.link.settle(undoing, what).await?;
        match self.link.ask(method, request).await? {
            Ok(answer) => Ok(answer),
            Err(CallError::Failed { message, .. })
                if !self.has_tables && says_it_is_there(&message) =>
            {
                // It was made before this daemon was restarted.
                let driver = self.link.name();
                tracing::info!(driver, method, said = message, "a plugin has it already");
                match held {
                    Held::Stays => serde_json::from_value(serde_json::json!({}))
                        .map_err(|error| self.link.broke(method, &error.to_string())),
                    Held::Anew => {
                        self.link.undo(undoing, what).await;
                        self.link.call(method, request).await
                    }
                }
            }
            Err(error) => {
                let failure = self.link.failure(&error);
                if error.is_doubtful() {
                    self.link.undo(undoing, what).await;
                }
                Err(failure)
            }
        }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, batch: EventBatch<'_>) -> Result<Progress, DriverError> {
        let notice = tables::notice(&batch);
        let reply: EventReply = self.link.call("EventNotify", &notice).await?;
        tables::read_progress(&reply, &batch)
            .map_err(|wrong| self.link.broke("EventNotify", &wrong))
    }

    async fn ask(&self, entry: &TableEntry) -> Result<Option<Decoded>, DriverError> {
        if !self.has_tables {
            return Ok(None);
        }
        let method = "DecodeTableEntry";
        let reply: DecodeReply = match self.link.ask(method, &tables::question(entry)).await? {
            Ok(reply) => reply,
            Err(CallError::NotImplemented { .. }) => return Ok(None),
            Err(error) => return Err(self.link.failure(&error)),
        };
        tables::read_decoded(reply).map_err(|wrong| self.link.broke(method, &wrong))
    }
}

impl Driver for Remote {
    fn capability(&self) -> Capability {
        self.capability
    }

    /// The plugin itself checks them, when it gets the network: the protocol has no other question.
    fn check_options(&self, _options: &BTreeMap<String, String>) -> Result<(), DriverError> {
        Ok(())
    }

    fn create_network<'a>(
        &'a self,
        network: &'a NetworkRecord,
    ) -> BoxFuture<'a, Result<Vec<TableInterest>, DriverError>> {
        Box::pin(self.make_network(network))
    }

    fn delete_network(&self, network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(self.delete_network_now(network))
    }

    fn create_endpoint<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Vec<Prefix>, DriverError>> {
        Box::pin(self.make_endpoint(endpoint))
    }

    fn delete_endpoint(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(self.delete_endpoint_now(network, endpoint))
    }

    fn join<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Joined, DriverError>> {
        Box::pin(self.join_now(endpoint))
    }

    fn leave(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(self.leave_now(network, endpoint))
    }

    fn forget_join(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(async move {
            let request = EndpointCall::of(network, endpoint);
            self.link.undo_for_sure("Leave", &request).await
        })
    }

    fn forget_endpoint(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(async move {
            let request = EndpointCall::of(network, endpoint);
            self.link.undo_for_sure("DeleteEndpoint", &request).await
        })
    }

    fn forget_network(&self, network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(async move {
            let request = NetworkCall::of(network);
            self.link.undo_for_sure("DeleteNetwork", &request).await
        })
    }

    fn connect_outside<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.connect_outside_now(endpoint))
    }

    fn enter<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
        joined: &'a Joined,
        sandbox: &'a SandboxPlace,
    ) -> BoxFuture<'a, Result<String, DriverError>> {
        Box::pin(self.enter_now(endpoint, joined, sandbox))
    }

    fn vanished(&self, network: NetworkId) -> BoxFuture<'_, EndpointId> {
        Box::pin(self.next_vanished(network))
    }

    fn nodes<'a>(&'a self, nodes: &'a [NodePlace]) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.tell_nodes(nodes))
    }

    /// A table driver counts its events: see [`Driver::event_batch`]. The others have no tables, so there is never one.
    fn event_notify<'a>(
        &'a self,
        _events: &'a [TableEvent],
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn event_batch<'a>(
        &'a self,
        batch: EventBatch<'a>,
    ) -> BoxFuture<'a, Result<Progress, DriverError>> {
        Box::pin(self.tell(batch))
    }

    fn position(&self, network: NetworkId) -> Option<Position> {
        self.done().networks.get(&network)?.1.position
    }

    fn is_older_than_us(&self) -> bool {
        true
    }

    fn decode<'a>(
        &'a self,
        entry: &'a TableEntry,
    ) -> BoxFuture<'a, Result<Option<Decoded>, DriverError>> {
        Box::pin(self.ask(entry))
    }

    fn life(&self) -> CancellationToken {
        self.link.life()
    }

    fn watch_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while self.link.check_life().await.is_ok() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    fn address(&self) -> Option<String> {
        Some(self.link.address())
    }

    fn describe(&self) -> serde_json::Value {
        let done = self.done();
        serde_json::json!({
            "address": self.link.address(),
            "tables": self.has_tables,
            "alive": !self.link.life().is_cancelled(),
            "networks": done.networks.len(),
            "endpoints": done.endpoints.len(),
        })
    }

    fn decode_table_entry(
        &self,
        _table: &TableName,
        _key: &Key,
        _value: &Value,
    ) -> Option<(EndpointId, BTreeMap<String, String>)> {
        None
    }

    fn inspect(&self, network: NetworkId) -> BoxFuture<'_, serde_json::Value> {
        let done = self.done();
        let of_network =
            |(endpoint, _): &&(EndpointRecord, Vec<Prefix>)| endpoint.network == network;
        let shown = serde_json::json!({
            "plugin": self.link.address(),
            "endpoints": done.endpoints.values().filter(of_network).count(),
        });
        Box::pin(std::future::ready(shown))
    }
}

#[cfg(test)]
mod tests;
