//! Remote drivers: plugins that speak libnetwork's network driver protocol, JSON over HTTP, and maybe the table-driver
//! protocol beyond it.
//!
//! The protocol knows no second attempt: a plugin may refuse to make what it has made. So what a plugin has done since this
//! daemon started is remembered here, and answered without asking it again. A call of which it is not known whether it was
//! done is undone, at once or before the next one of its kind.
//!
//! **Invariant:** a [`Remote`] is one life of a plugin. When its process is another one, or gone, the remote's life ends and
//! the registry asks for the plugin anew: a plugin that was restarted knows nothing of what it was told before.

mod ipam;
mod message;
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

use self::{
    message::{Capabilities, DecodeReply, EventReply, Nothing},
    tables::Interests,
};
use super::{
    Capability, Decoded, Driver, DriverError, DriverSource, EventBatch, IpamDriver, Joined,
    Position, Progress, Scope, SourceError, TableEvent, TableInterest,
};
use crate::{
    core::model::{
        EndpointId, EndpointRecord, Key, Name, NetworkId, NetworkRecord, TableEntry, TableName,
        Value,
    },
    plugin::{self, CallError, Client, GetError, Getter, Mark, Mode},
};

/// How long a plugin may take to undo what it may have done.
const UNDO_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is looked whether a plugin is still the same process.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
        let plugin = self
            .plugin(name, plugin::Capability::NETWORK_DRIVER)
            .await?;
        let has_tables = plugin.can(plugin::Capability::TABLE_DRIVER);
        let remote = Remote::connect(name, plugin.client, has_tables).await;
        let remote = remote.map_err(|error| SourceError::Broken(brief(error.to_string())))?;
        Ok(Arc::new(remote))
    }

    async fn find_ipam(&self, name: &Name) -> Result<Arc<dyn IpamDriver>, SourceError> {
        let plugin = self.plugin(name, plugin::Capability::IPAM_DRIVER).await?;
        let remote = RemoteIpam::connect(name, plugin.client).await;
        let remote = remote.map_err(|error| SourceError::Broken(brief(error.to_string())))?;
        Ok(Arc::new(remote))
    }

    async fn plugin(
        &self,
        name: &Name,
        capability: plugin::Capability,
    ) -> Result<plugin::Plugin, SourceError> {
        let found = self.getter.get(name.as_str(), capability, Mode::Lookup);
        found.await.map_err(|error| match error {
            GetError::NotFound(_) => SourceError::NotFound,
            other @ (GetError::Ambiguous(_)
            | GetError::NotImplemented { .. }
            | GetError::Disabled(_)
            | GetError::Engine(_)
            | GetError::Discovery(_)
            | GetError::Activation { .. }) => SourceError::Broken(brief(other.to_string())),
        })
    }
}

impl DriverSource for Plugins {
    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Arc<dyn Driver>, SourceError>> {
        Box::pin(self.find(name))
    }

    fn get_ipam<'a>(
        &'a self,
        name: &'a Name,
    ) -> BoxFuture<'a, Result<Arc<dyn IpamDriver>, SourceError>> {
        Box::pin(self.find_ipam(name))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<plugin::Listed>, SourceError>> {
        Box::pin(async {
            let listed = self.getter.list().await;
            listed.map_err(|error| SourceError::Broken(brief(error.to_string())))
        })
    }
}

/// What a plugin has done in this life of it.
#[derive(Default)]
struct Done {
    networks: BTreeMap<NetworkId, (NetworkRecord, Interests)>,
    endpoints: BTreeMap<EndpointId, EndpointRecord>,
    joined: BTreeMap<EndpointId, Joined>,
    /// What may have been done and was not undone yet: the undoing call's method and body.
    doubts: BTreeSet<(&'static str, String)>,
}

/// A driver in another process.
pub struct Remote {
    name: String,
    client: Client,
    capability: Capability,
    has_tables: bool,
    mark: Option<Mark>,
    life: CancellationToken,
    done: Mutex<Done>,
}

impl Remote {
    /// Asks a plugin what it can do. One that does not say is no driver.
    pub async fn connect(
        name: &Name,
        client: Client,
        has_tables: bool,
    ) -> Result<Self, DriverError> {
        let mark = client.mark().await;
        let mut remote = Self {
            name: name.to_string(),
            client,
            capability: Capability {
                data_scope: Scope::Local,
                connectivity_scope: Scope::Local,
            },
            has_tables,
            mark,
            life: CancellationToken::new(),
            done: Mutex::default(),
        };
        let said: Capabilities = remote.call("GetCapabilities", &()).await?;
        let data_scope = remote.scope(&said.scope)?;
        let connectivity_scope = match said.connectivity_scope.as_str() {
            "" => data_scope,
            other => remote.scope(other)?,
        };
        remote.capability = Capability {
            data_scope,
            connectivity_scope,
        };
        Ok(remote)
    }

    fn scope(&self, text: &str) -> Result<Scope, DriverError> {
        match text {
            "local" => Ok(Scope::Local),
            "global" => Ok(Scope::Global),
            other => Err(self.broke(format!("scope {other:?}: local or global is expected"))),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
    ) -> Result<T, DriverError> {
        self.check_life().await?;
        let answer = self.client.call(&full(method), request).await;
        answer.map_err(|error| self.failure(&error))
    }

    /// Makes a call that leaves something behind. Where it is not known whether it has, it is undone.
    async fn make<T: DeserializeOwned>(
        &self,
        (method, request): (&str, &impl Serialize),
        (undoing, what): (&'static str, &impl Serialize),
    ) -> Result<T, DriverError> {
        self.settle(undoing, what).await?;
        self.check_life().await?;
        let answer = self.client.call(&full(method), request).await;
        match answer {
            Ok(answer) => Ok(answer),
            Err(CallError::Failed { message, .. })
                if !self.has_tables && says_it_is_there(&message) =>
            {
                self.take_over((method, request), (undoing, what), &message)
                    .await
            }
            Err(error) => {
                let failure = self.failure(&error);
                if error.is_doubtful() {
                    self.undo(undoing, what).await;
                }
                Err(failure)
            }
        }
    }

    /// Takes over what a plugin says is there already: it was made before this daemon was restarted. A join is made anew, since
    /// its answer is needed.
    async fn take_over<T: DeserializeOwned>(
        &self,
        (method, request): (&str, &impl Serialize),
        (undoing, what): (&'static str, &impl Serialize),
        message: &str,
    ) -> Result<T, DriverError> {
        tracing::info!(
            driver = self.name,
            method,
            message,
            "a plugin has it already"
        );
        if undoing == "Leave" {
            self.undo(undoing, what).await;
            return self.call(method, request).await;
        }
        let nothing = serde_json::Value::Object(serde_json::Map::new());
        serde_json::from_value(nothing).map_err(|error| self.broke(error.to_string()))
    }

    /// Undoes what may have been done. If that is not known to have worked either, it is tried again before the next time.
    async fn undo(&self, method: &'static str, request: &impl Serialize) {
        let undone = self
            .client
            .call_within::<Nothing>(&full(method), request, UNDO_DEADLINE)
            .await;
        let doubt = (method, body(request));
        match undone {
            // It says that there is nothing to undo.
            Ok(Nothing {}) | Err(CallError::Failed { .. } | CallError::NotImplemented { .. }) => {
                self.done().doubts.remove(&doubt);
            }
            // Its process has ended, and with it what it may have done.
            Err(error) if error.is_gone() => {
                self.life.cancel();
                self.done().doubts.remove(&doubt);
            }
            Err(error) => {
                tracing::warn!(driver = self.name, %error, "what a plugin may have done is not undone yet");
                self.done().doubts.insert(doubt);
            }
        }
    }

    /// Undoes what is in doubt, if this is.
    async fn settle(
        &self,
        method: &'static str,
        request: &impl Serialize,
    ) -> Result<(), DriverError> {
        let doubt = (method, body(request));
        if !self.done().doubts.contains(&doubt) {
            return Ok(());
        }
        self.undo(method, request).await;
        if self.done().doubts.contains(&doubt) {
            return Err(DriverError::Unreachable {
                driver: self.name.clone(),
                reason: format!("{} has not undone an earlier call yet", full(method)),
            });
        }
        Ok(())
    }

    /// Refuses if the plugin's process is another one than when this life began.
    async fn check_life(&self) -> Result<(), DriverError> {
        if !self.life.is_cancelled() && self.client.mark().await == self.mark {
            return Ok(());
        }
        if !self.life.is_cancelled() {
            tracing::info!(
                driver = self.name,
                "a driver's process was restarted or has ended"
            );
            self.life.cancel();
        }
        Err(DriverError::Restarted {
            driver: self.name.clone(),
        })
    }

    fn failure(&self, error: &CallError) -> DriverError {
        if error.is_gone() {
            self.life.cancel();
        }
        failure(&self.name, error)
    }

    fn broke(&self, reason: String) -> DriverError {
        let driver = self.name.clone();
        let reason = brief(reason);
        DriverError::Protocol { driver, reason }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, batch: EventBatch<'_>) -> Result<Progress, DriverError> {
        let reply: EventReply = self.call("EventNotify", &tables::notice(&batch)).await?;
        tables::read_progress(&reply, &batch)
            .map_err(|wrong| self.broke(format!("NetworkDriver.EventNotify: {wrong}")))
    }

    async fn ask(&self, entry: &TableEntry) -> Result<Option<Decoded>, DriverError> {
        if !self.has_tables {
            return Ok(None);
        }
        self.check_life().await?;
        let method = full("DecodeTableEntry");
        let reply: DecodeReply = match self.client.call(&method, &tables::question(entry)).await {
            Ok(reply) => reply,
            Err(CallError::NotImplemented { .. }) => return Ok(None),
            Err(error) => return Err(self.failure(&error)),
        };
        tables::read_decoded(reply).map_err(|wrong| self.broke(format!("{method}: {wrong}")))
    }
}

/// Returns whether a refusal says that what is to be made is there. libnetwork has no code for it, only such words.
fn says_it_is_there(message: &str) -> bool {
    let message = message.to_lowercase();
    let words = ["already exist", "already joined"];
    words.iter().any(|words| message.contains(words))
}

/// A call's failure in the words of drivers.
fn failure(name: &str, error: &CallError) -> DriverError {
    let driver = name.to_owned();
    let reason = brief(error.to_string());
    match error {
        CallError::Failed { .. } => DriverError::Refused { driver, reason },
        CallError::NotImplemented { .. }
        | CallError::TooLarge { .. }
        | CallError::Malformed { .. } => DriverError::Protocol { driver, reason },
        CallError::Unreachable { .. }
        | CallError::Deadline { .. }
        | CallError::Broken { .. }
        | CallError::Untrusted { .. }
        | CallError::LeftAlone { .. } => DriverError::Unreachable { driver, reason },
    }
}

/// How much of what a plugin says ends up in an error, in bytes: it may have said megabytes.
const REASON_MAX: usize = 1000;

/// Cuts a text that is too long for a person.
fn brief(mut text: String) -> String {
    if text.len() > REASON_MAX {
        let fits = (0..=REASON_MAX)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(fits.unwrap_or_default());
        text.push('…');
    }
    text
}

fn full(method: &str) -> String {
    format!("NetworkDriver.{method}")
}

fn body(request: &impl Serialize) -> String {
    serde_json::to_string(request).expect("our own types have string keys and no failing fields")
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
        self.life.clone()
    }

    fn watch_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while self.check_life().await.is_ok() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    fn describe(&self) -> serde_json::Value {
        let done = self.done();
        serde_json::json!({
            "address": self.client.address().to_string(),
            "tables": self.has_tables,
            "alive": !self.life.is_cancelled(),
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
