//! Remote drivers: plugins that speak libnetwork's network driver protocol, JSON over HTTP.
//!
//! The protocol knows no second attempt: a plugin may refuse to make what it has made. So what a plugin has done since this
//! daemon started is remembered here, and answered without asking it again.

mod message;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

use self::message::{
    Capabilities, CreateEndpoint, CreateNetwork, EndpointCall, Interface, InterfaceReply, Join,
    JoinReply, NetworkCall, Nothing,
};
use super::{
    Capability, Driver, DriverError, DriverSource, InterfaceName, Joined, Route, Scope,
    SourceError, TableEvent, TableInterest,
};
use crate::{
    core::model::{
        EndpointId, EndpointRecord, Key, Name, NetworkId, NetworkRecord, Prefix, TableName, Value,
    },
    plugin::{self, CallError, Client, GetError, Getter, Mode},
};

/// Finds remote drivers with the plugin getter.
#[derive(Clone)]
pub struct Plugins {
    getter: Getter,
}

impl Plugins {
    /// Asks this getter.
    pub fn new(getter: Getter) -> Self {
        Self { getter }
    }

    async fn find(&self, name: &Name) -> Result<Arc<dyn Driver>, SourceError> {
        let capability = plugin::Capability::NETWORK_DRIVER;
        let found = self.getter.get(name.as_str(), capability, Mode::Lookup);
        let plugin = found.await.map_err(|error| match error {
            GetError::NotFound(_) => SourceError::NotFound,
            other @ (GetError::Ambiguous(_)
            | GetError::NotImplemented { .. }
            | GetError::Disabled(_)
            | GetError::Engine(_)
            | GetError::Discovery(_)
            | GetError::Activation { .. }) => SourceError::Broken(other.to_string()),
        })?;
        let remote = Remote::connect(name, plugin.client).await;
        let remote = remote.map_err(|error| SourceError::Broken(error.to_string()))?;
        Ok(Arc::new(remote))
    }
}

impl DriverSource for Plugins {
    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Arc<dyn Driver>, SourceError>> {
        Box::pin(self.find(name))
    }
}

/// What a plugin has done since this daemon started.
#[derive(Default)]
struct Done {
    networks: BTreeMap<NetworkId, NetworkRecord>,
    endpoints: BTreeMap<EndpointId, EndpointRecord>,
    joined: BTreeMap<EndpointId, Joined>,
}

/// A driver in another process.
pub struct Remote {
    name: String,
    client: Client,
    capability: Capability,
    done: Mutex<Done>,
}

impl Remote {
    /// Asks a plugin what it can do. One that does not say is no driver.
    pub async fn connect(name: &Name, client: Client) -> Result<Self, DriverError> {
        let mut remote = Self {
            name: name.to_string(),
            client,
            capability: Capability {
                data_scope: Scope::Local,
                connectivity_scope: Scope::Local,
            },
            done: Mutex::default(),
        };
        let said: Capabilities = remote.call("GetCapabilities", &()).await?;
        let data_scope = remote.scope(&said.scope)?;
        remote.capability = Capability {
            data_scope,
            connectivity_scope: match said.connectivity_scope.as_str() {
                "" => data_scope,
                scope => remote.scope(scope)?,
            },
        };
        Ok(remote)
    }

    fn scope(&self, text: &str) -> Result<Scope, DriverError> {
        match text {
            "local" => Ok(Scope::Local),
            "global" => Ok(Scope::Global),
            other => Err(self.broke(format!("scope {other:?} is neither local nor global"))),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
    ) -> Result<T, DriverError> {
        let method = format!("NetworkDriver.{method}");
        let called = self.client.call(&method, request).await;
        called.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &CallError) -> DriverError {
        let driver = self.name.clone();
        let reason = error.to_string();
        match error {
            CallError::Failed { .. } => DriverError::Refused { driver, reason },
            CallError::NotImplemented { .. }
            | CallError::TooLarge(_)
            | CallError::Malformed { .. } => DriverError::Protocol { driver, reason },
            CallError::Unreachable { .. }
            | CallError::Deadline { .. }
            | CallError::Broken { .. } => DriverError::Unreachable { driver, reason },
        }
    }

    fn broke(&self, reason: String) -> DriverError {
        let driver = self.name.clone();
        DriverError::Protocol { driver, reason }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make_network(&self, network: &NetworkRecord) -> Result<(), DriverError> {
        let held = self.done().networks.get(&network.id).cloned();
        match held {
            Some(held) if held == *network => return Ok(()),
            Some(_) => return Err(DriverError::NetworkExists(network.id)),
            None => {}
        }
        let _: Nothing = self
            .call("CreateNetwork", &CreateNetwork::of(network))
            .await?;
        self.done().networks.insert(network.id, network.clone());
        Ok(())
    }

    async fn make_endpoint(&self, endpoint: &EndpointRecord) -> Result<(), DriverError> {
        let held = self.done().endpoints.get(&endpoint.id).cloned();
        match held {
            Some(held) if held.is_same(endpoint) => return Ok(()),
            Some(_) => return Err(DriverError::EndpointExists(endpoint.id)),
            None => {}
        }
        let request = CreateEndpoint::of(endpoint);
        let reply: InterfaceReply = self.call("CreateEndpoint", &request).await?;
        let ids = EndpointCall::of(endpoint.network, endpoint.id);
        // We gave it an address and a MAC: it may not answer with others.
        if reply
            .interface
            .is_some_and(|set| set != Interface::default())
        {
            let _: Nothing = self.call("DeleteEndpoint", &ids).await?;
            return Err(self.broke("it changed an address or a MAC that was given".to_owned()));
        }
        self.done().endpoints.insert(endpoint.id, endpoint.clone());
        Ok(())
    }

    async fn join_now(&self, endpoint: &EndpointRecord) -> Result<Joined, DriverError> {
        if let Some(joined) = self.done().joined.get(&endpoint.id) {
            return Ok(joined.clone());
        }
        let request = Join::of(endpoint);
        let reply: JoinReply = self.call("Join", &request).await?;
        let joined = match self.read(reply) {
            Ok(joined) => joined,
            Err(bad) => {
                let ids = EndpointCall::of(endpoint.network, endpoint.id);
                let _: Nothing = self.call("Leave", &ids).await?;
                return Err(bad);
            }
        };
        self.done().joined.insert(endpoint.id, joined.clone());
        Ok(joined)
    }

    fn read(&self, reply: JoinReply) -> Result<Joined, DriverError> {
        let mut gateways = Vec::new();
        for text in [&reply.gateway, &reply.gateway_ipv6] {
            if !text.is_empty() {
                gateways.push(self.address(text)?);
            }
        }
        let mut routes = Vec::new();
        for route in &reply.static_routes {
            let destination = route.destination.parse();
            let destination = destination.map_err(|error| {
                self.broke(format!("route to {:?}: {error}", route.destination))
            })?;
            routes.push(Route {
                destination: Prefix(destination),
                // 0 goes through a next hop, 1 is on the link.
                via: match route.route_type {
                    0 => Some(self.address(&route.next_hop)?),
                    1 => None,
                    other => return Err(self.broke(format!("{other} is no type of route"))),
                },
            });
        }
        let interface = reply.interface_name.map(|name| InterfaceName {
            source: name.src_name,
            prefix: name.dst_prefix,
        });
        Ok(Joined {
            interface,
            gateways,
            routes,
            entries: Vec::new(),
        })
    }

    fn address(&self, text: &str) -> Result<IpAddr, DriverError> {
        let address = text.parse();
        address.map_err(|error| self.broke(format!("address {text:?}: {error}")))
    }

    async fn leave_now(&self, network: NetworkId, endpoint: EndpointId) -> Result<(), DriverError> {
        if !self.done().joined.contains_key(&endpoint) {
            return Ok(());
        }
        let _: Nothing = self
            .call("Leave", &EndpointCall::of(network, endpoint))
            .await?;
        self.done().joined.remove(&endpoint);
        Ok(())
    }

    async fn delete_endpoint_now(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<(), DriverError> {
        self.leave_now(network, endpoint).await?;
        if !self.done().endpoints.contains_key(&endpoint) {
            return Ok(());
        }
        let _: Nothing = self
            .call("DeleteEndpoint", &EndpointCall::of(network, endpoint))
            .await?;
        self.done().endpoints.remove(&endpoint);
        Ok(())
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
        Box::pin(async move {
            self.make_network(network).await?;
            Ok(Vec::new())
        })
    }

    fn delete_network(&self, network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(async move {
            if !self.done().networks.contains_key(&network) {
                return Ok(());
            }
            let _: Nothing = self
                .call("DeleteNetwork", &NetworkCall::of(network))
                .await?;
            self.done().networks.remove(&network);
            Ok(())
        })
    }

    fn create_endpoint<'a>(
        &'a self,
        endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
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

    /// libnetwork's protocol has no tables, so there is no interest and never an event.
    fn event_notify<'a>(
        &'a self,
        _events: &'a [TableEvent],
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(std::future::ready(Ok(())))
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
        let of_network = |endpoint: &&EndpointRecord| endpoint.network == network;
        let shown = serde_json::json!({
            "plugin": self.client.address().to_string(),
            "endpoints": done.endpoints.values().filter(of_network).count(),
        });
        Box::pin(std::future::ready(shown))
    }
}

#[cfg(test)]
mod tests;
