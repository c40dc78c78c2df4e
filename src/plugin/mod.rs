//! Plugin getter: managed plugins of the Docker engine (v2) first, then sockets and spec files (v1).
//!
//! **Invariant:** v1 is asked only when v2 says that it knows no such plugin. A managed plugin that is disabled, or lacks
//! the capability, or an engine that does not answer, is an error: else a v1 plugin could take a managed one's place.
//!
//! Every call has a deadline and every answer a size limit. A plugin that could not be activated is remembered for a
//! while, so that many callers do not wait for it one after the other.

mod activations;
mod breaker;
mod client;
mod discovery;
mod document;
mod engine;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub use activations::Activations;
pub use client::{Address, CallError, Client, Mark};
pub use discovery::{Directories, DiscoveryError};
pub use document::Lines;
pub use engine::EngineError;
pub use tls::TlsFiles;

/// What a caller needs a plugin to be able to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Capability(&'static str);

impl Capability {
    /// Carries networks: libnetwork's remote driver protocol.
    pub const NETWORK_DRIVER: Self = Self("NetworkDriver");
    /// Beyond that, keeps table entries and hears of others': see `docs/table-driver-protocol.md`.
    pub const TABLE_DRIVER: Self = Self("weft.TableDriver/1.0");
    /// Hands out pools and addresses: libnetwork's remote IPAM protocol.
    pub const IPAM_DRIVER: Self = Self("IpamDriver");

    /// Returns its name in the activation of a v1 plugin, for example `NetworkDriver`.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Returns its name in a managed plugin's configuration, for example `docker.networkdriver/1.0`.
    fn managed(self) -> String {
        let name = self.0.to_ascii_lowercase();
        if name.contains('/') {
            return name;
        }
        format!("docker.{name}/1.0")
    }
}

/// What becomes of our count of users of a managed plugin. v1 plugins are not counted. One user less is no lookup:
/// [`Getter::release`] works while the engine is away and after the plugin was disabled, or a user would be counted for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It stays.
    Lookup,
    /// One more.
    Acquire,
}

/// How a plugin came to this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The engine manages it, under this id.
    Managed(String),
    /// It brought a socket or a spec file.
    Legacy,
}

/// A plugin that can be called.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The name it was found by; of a managed one, with its tag.
    pub name: String,
    /// How it came to this host.
    pub origin: Origin,
    /// Calls it.
    pub client: Client,
    capabilities: BTreeSet<String>,
    mark: Option<Mark>,
}

impl Plugin {
    /// Returns whether it can do this.
    pub fn can(&self, capability: Capability) -> bool {
        match self.origin {
            Origin::Managed(_) => {
                let name = capability.managed();
                let mut all = self.capabilities.iter();
                all.any(|found| found.eq_ignore_ascii_case(&name))
            }
            Origin::Legacy => self.capabilities.contains(capability.as_str()),
        }
    }

    /// Returns whether another one is the same process on the same socket, as far as can be seen.
    fn is(&self, other: &Self) -> bool {
        self.client.address() == other.client.address() && self.mark == other.mark
    }

    /// Returns what it says it can do, in its own words.
    pub fn capabilities(&self) -> impl Iterator<Item = &str> {
        self.capabilities.iter().map(String::as_str)
    }
}

/// A plugin among others, and how it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The name it is found by.
    pub name: String,
    /// How it came to this host.
    pub origin: Origin,
    /// Where it listens; nothing if that cannot be read.
    pub address: Option<String>,
    /// How it is.
    pub state: Health,
    /// What it says it can do, in its own words.
    pub capabilities: BTreeSet<String>,
    /// How many users it has through us; nothing for a v1 plugin, which is not counted.
    pub users: Option<u32>,
}

/// How a plugin is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// It can be called.
    Enabled,
    /// The engine's operator has disabled it.
    Disabled,
    /// It does not answer, or what leads to it is wrong.
    Broken(String),
}

impl Listed {
    fn of(plugin: Plugin, state: Health) -> Self {
        Self {
            name: plugin.name,
            origin: plugin.origin,
            address: Some(plugin.client.address().to_string()),
            state,
            capabilities: plugin.capabilities,
            users: None,
        }
    }
}

/// Why there is no plugin to call. Nothing was changed, counts included.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GetError {
    /// Neither the engine nor the plugin directories know it. The caller misspelt it, or it must be installed.
    #[error("plugin {0:?} not found")]
    NotFound(String),
    /// The name is the beginning of more than one id. The caller must write more of it.
    #[error("plugin id {0:?} is ambiguous: more than one plugin's id begins with it")]
    Ambiguous(String),
    /// The plugin is another kind of plugin.
    #[error("plugin {name:?} does not implement {}", capability.as_str())]
    NotImplemented {
        /// The plugin.
        name: String,
        /// What it lacks.
        capability: Capability,
    },
    /// The operator disabled it.
    #[error("plugin {0:?} is disabled: run `docker plugin enable {0}`")]
    Disabled(String),
    /// The engine does not answer, so it is not known whether the plugin is managed. It must be started or mended.
    #[error("cannot ask the Docker engine for plugins: {0}")]
    Engine(#[from] Arc<EngineError>),
    /// The files that lead to the plugin are wrong. The operator must mend them.
    #[error(transparent)]
    Discovery(#[from] Arc<DiscoveryError>),
    /// The plugin was found and does not come up. The operator must look at it.
    #[error("plugin {name:?} cannot be activated: {source}")]
    Activation {
        /// The plugin.
        name: String,
        /// What the last attempt met.
        source: Arc<CallError>,
    },
}

/// Deadlines of the getter.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// For one call of a plugin, from connecting to the last byte of the answer.
    pub call: Duration,
    /// For one attempt to activate a plugin, and for one question to the engine.
    pub handshake: Duration,
    /// The wait after the first failed attempt to connect; each further one is twice as long.
    pub first_retry: Duration,
    /// Attempts end when waiting any longer would pass this.
    pub give_up: Duration,
    /// For how long a plugin that could not be activated is not tried again.
    pub remember_failure: Duration,
}

impl Default for Timings {
    /// What Docker does (attempts after 1, 2, 4 and 8 s, case P8), with the deadlines that it lacks.
    fn default() -> Self {
        Self {
            call: Duration::from_secs(30),
            handshake: Duration::from_secs(5),
            first_retry: Duration::from_secs(1),
            give_up: Duration::from_secs(15),
            remember_failure: Duration::from_secs(10),
        }
    }
}

/// Where plugins are looked for, and with how much patience.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The engine's socket; nothing if managed plugins are not wanted. A socket that does not exist means no engine.
    pub engine: Option<PathBuf>,
    /// The directories of plugins.
    pub directories: Directories,
    /// Names that are never looked up, our own for one.
    pub ignored: BTreeSet<String>,
    /// The deadlines.
    pub timings: Timings,
}

/// Finds plugins and keeps those that were activated. Clones share everything.
#[derive(Clone, Debug)]
pub struct Getter {
    config: Arc<Config>,
    state: Arc<Mutex<State>>,
    activated: Arc<watch::Sender<u64>>,
}

/// **Bound:** each map holds at most one entry for each plugin there is on the host, or [`FAILURES_MAX`].
#[derive(Default, Debug)]
struct State {
    /// Activated plugins by name, each with the number of its activation.
    active: BTreeMap<String, (u64, Plugin)>,
    activations: u64,
    failures: BTreeMap<String, Failure>,
    /// Users of managed plugins, by id.
    users: BTreeMap<String, u32>,
}

/// Why a plugin was not activated, and until when that is believed of the same socket.
#[derive(Clone, Debug)]
struct Failure {
    until: Instant,
    mark: Option<Mark>,
    error: GetError,
}

/// How many failures are remembered; at the bound all are forgotten.
const FAILURES_MAX: usize = 256;

#[derive(Deserialize)]
struct Activation {
    #[serde(rename = "Implements", default)]
    implements: Option<BTreeSet<String>>,
}

impl Getter {
    /// Makes a getter. Nothing is looked up yet.
    pub fn new(config: Config) -> Self {
        Self {
            config: Arc::new(config),
            state: Arc::default(),
            activated: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Finds a plugin: a managed one by id, name or the beginning of its id, else a v1 plugin by name.
    pub async fn get(
        &self,
        name: &str,
        capability: Capability,
        mode: Mode,
    ) -> Result<Plugin, GetError> {
        if name.is_empty() || self.config.ignored.contains(name) {
            return Err(GetError::NotFound(name.to_owned()));
        }
        match self.managed(name).await? {
            Some((mut plugin, is_enabled)) => {
                plugin.mark = plugin.client.mark().await;
                self.use_managed(plugin, is_enabled, capability, mode)
            }
            None => self.legacy(name, capability).await,
        }
    }

    /// Returns every plugin that has the capability: managed ones that are enabled, then v1. What does not answer is
    /// skipped, and not waited for again and again.
    pub async fn all(&self, capability: Capability) -> Result<Vec<Plugin>, GetError> {
        let listed = engine::list(&self.config).await.map_err(Arc::new)?;
        let mut found: Vec<Plugin> = listed
            .iter()
            .filter(|managed| managed.is_enabled)
            .map(|managed| managed.plugin(&self.config))
            .filter(|plugin| plugin.can(capability))
            .collect();
        for plugin in &mut found {
            plugin.mark = plugin.client.mark().await;
            self.note_active(plugin);
        }
        for name in discovery::scan(&self.config.directories).await {
            if self.config.ignored.contains(&name) || found.iter().any(|plugin| plugin.name == name)
            {
                continue;
            }
            let Ok(Some(address)) = discovery::find(&self.config.directories, &name).await else {
                continue;
            };
            let plugin = match self.cached(&name, &address).await {
                Some(plugin) => Ok(plugin),
                None => self.activate(&name, address).await,
            };
            found.extend(plugin.ok().filter(|plugin| plugin.can(capability)));
        }
        Ok(found)
    }

    /// Returns everything that looks like a plugin, whatever it can do, and how each is. What is dead is not waited for.
    pub async fn list(&self) -> Result<Vec<Listed>, GetError> {
        let managed = engine::list(&self.config).await.map_err(Arc::new)?;
        let mut found: Vec<Listed> = managed
            .iter()
            .map(|managed| {
                let state = if managed.is_enabled {
                    Health::Enabled
                } else {
                    Health::Disabled
                };
                let users = Some(self.users(&managed.id));
                let listed = Listed::of(managed.plugin(&self.config), state);
                Listed { users, ..listed }
            })
            .collect();
        for name in discovery::scan(&self.config.directories).await {
            if self.config.ignored.contains(&name) || found.iter().any(|held| held.name == name) {
                continue;
            }
            if let Some(listed) = self.look_at(name).await {
                found.push(listed);
            }
        }
        Ok(found)
    }

    /// Looks at a v1 plugin; nothing if it has gone meanwhile.
    async fn look_at(&self, name: String) -> Option<Listed> {
        let broken = |name, address: Option<&Address>, reason: String| Listed {
            name,
            origin: Origin::Legacy,
            address: address.map(ToString::to_string),
            state: Health::Broken(reason),
            capabilities: BTreeSet::new(),
            users: None,
        };
        let address = match discovery::find(&self.config.directories, &name).await {
            Ok(address) => address?,
            Err(error) => return Some(broken(name, None, error.to_string())),
        };
        if let Some(plugin) = self.cached(&name, &address).await {
            return Some(Listed::of(plugin, Health::Enabled));
        }
        match self.activate(&name, address.clone()).await {
            Ok(plugin) => Some(Listed::of(plugin, Health::Enabled)),
            Err(error) => Some(broken(name, Some(&address), error.to_string())),
        }
    }

    /// Counts one user of a managed plugin less, by its id. One that has none stays as it is.
    pub fn release(&self, id: &str) {
        self.with_state(|state| {
            if let Some(users) = state.users.get_mut(id) {
                *users = users.saturating_sub(1);
            }
            state.users.retain(|_, users| *users > 0);
        });
    }

    /// Returns how many users a managed plugin has through us.
    pub fn users(&self, id: &str) -> u32 {
        self.with_state(|state| state.users.get(id).copied().unwrap_or(0))
    }

    /// Tells of every plugin with the capability that was activated, those that already are first.
    pub fn activations(&self, capability: Capability) -> Activations {
        Activations::new(self.clone(), capability)
    }

    async fn managed(&self, name: &str) -> Result<Option<(Plugin, bool)>, GetError> {
        let listed = engine::list(&self.config).await.map_err(Arc::new)?;
        let found = engine::resolve(&listed, name)?;
        Ok(found.map(|managed| (managed.plugin(&self.config), managed.is_enabled)))
    }

    fn use_managed(
        &self,
        plugin: Plugin,
        is_enabled: bool,
        capability: Capability,
        mode: Mode,
    ) -> Result<Plugin, GetError> {
        if !plugin.can(capability) {
            let name = plugin.name;
            return Err(GetError::NotImplemented { name, capability });
        }
        if !is_enabled {
            return Err(GetError::Disabled(plugin.name));
        }
        if let (Origin::Managed(id), Mode::Acquire) = (&plugin.origin, mode) {
            self.with_state(|state| *state.users.entry(id.clone()).or_default() += 1);
        }
        self.note_active(&plugin);
        Ok(plugin)
    }

    async fn legacy(&self, name: &str, capability: Capability) -> Result<Plugin, GetError> {
        let found = discovery::find(&self.config.directories, name)
            .await
            .map_err(Arc::new)?;
        let address = found.ok_or_else(|| GetError::NotFound(name.to_owned()))?;
        let plugin = match self.cached(name, &address).await {
            Some(plugin) => plugin,
            None => self.activate_patiently(name, address).await?,
        };
        if !plugin.can(capability) {
            let name = plugin.name;
            return Err(GetError::NotImplemented { name, capability });
        }
        Ok(plugin)
    }

    /// Returns the activated plugin, unless it has moved or was restarted since.
    async fn cached(&self, name: &str, address: &Address) -> Option<Plugin> {
        let known =
            self.with_state(|state| state.active.get(name).map(|(_, plugin)| plugin.clone()))?;
        let is_there = known.client.address() == address && known.client.mark().await == known.mark;
        is_there.then_some(known)
    }

    /// Activates a v1 plugin, trying again while nobody answers on its socket: it may be starting.
    async fn activate_patiently(&self, name: &str, address: Address) -> Result<Plugin, GetError> {
        let started = Instant::now();
        let timings = self.config.timings;
        let mark = Client::new(address.clone(), timings.call).mark().await;
        let remembered = self.with_state(|state| state.failures.get(name).cloned());
        if let Some(failure) = remembered.filter(|held| started < held.until && held.mark == mark) {
            tracing::debug!(
                plugin = name,
                until = ?failure.until,
                "a failed activation is not repeated yet"
            );
            return Err(failure.error);
        }
        let mut waits = retries(timings.first_retry, timings.give_up);
        let error = loop {
            let error = match self.activate(name, address.clone()).await {
                Ok(plugin) => return Ok(plugin),
                Err(error) => error,
            };
            let is_starting =
                matches!(&error, GetError::Activation { source, .. } if source.is_unreachable());
            match waits.next() {
                Some(wait) if is_starting => sleep(wait).await,
                Some(_) | None => break error,
            }
        };
        self.with_state(|state| {
            if state.failures.len() == FAILURES_MAX {
                state.failures.clear();
            }
            let failure = Failure {
                until: Instant::now() + timings.remember_failure,
                mark,
                error: error.clone(),
            };
            state.failures.insert(name.to_owned(), failure);
        });
        Err(error)
    }

    async fn activate(&self, name: &str, address: Address) -> Result<Plugin, GetError> {
        let timings = self.config.timings;
        let client = Client::new(address, timings.call);
        let mark = client.mark().await;
        let activation: Activation = client
            .call_within(
                "Plugin.Activate",
                &serde_json::Value::Null,
                timings.handshake,
            )
            .await
            .map_err(|source| GetError::Activation {
                name: name.to_owned(),
                source: Arc::new(source),
            })?;
        let plugin = Plugin {
            name: name.to_owned(),
            origin: Origin::Legacy,
            client,
            capabilities: activation.implements.unwrap_or_default(),
            mark,
        };
        self.note_active(&plugin);
        Ok(plugin)
    }

    /// Remembers a plugin and tells those who follow activations, once for each socket that it was found on.
    fn note_active(&self, plugin: &Plugin) {
        let number = self.with_state(|state| {
            state.failures.remove(&plugin.name);
            let known = state.active.get(&plugin.name);
            if known.is_some_and(|(_, known)| known.is(plugin)) {
                return None;
            }
            state.activations += 1;
            state
                .active
                .insert(plugin.name.clone(), (state.activations, plugin.clone()));
            Some(state.activations)
        });
        if let Some(number) = number {
            tracing::info!(plugin = plugin.name, address = %plugin.client.address(), "plugin activated");
            self.activated.send_replace(number);
        }
    }

    /// The one place that locks; what it runs does not wait.
    fn with_state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the waits between attempts: twice as long each time, while their sum stays within `give_up`.
fn retries(first: Duration, give_up: Duration) -> impl Iterator<Item = Duration> {
    let mut next = first;
    let mut waited = Duration::ZERO;
    std::iter::from_fn(move || {
        let wait = next;
        waited += wait;
        next *= 2;
        (waited <= give_up).then_some(wait)
    })
}

#[cfg(test)]
mod tests;
