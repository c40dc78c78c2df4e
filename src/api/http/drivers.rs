//! The JSON of drivers, of the plugins they may come from, and of an endpoint looked at closely; and how it is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    types::{Applied, Endpoint, Entry},
    views::{self, Names},
};
use crate::{
    controller::{self, DriverView, PluginView},
    core::model::{EndpointId, Name},
    driver,
    plugin::{Health, Origin},
};

/// How far something of a driver reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One node.
    Local,
    /// Every node of the cluster.
    Global,
}

impl Scope {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

/// A driver: one of `GET /v1/drivers`, or `GET /v1/drivers/{driver}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    /// Its name.
    pub name: Name,
    /// Whether it is part of Weft; otherwise it is a plugin.
    pub built_in: bool,
    /// Where its networks' resources are allocated.
    pub data_scope: Scope,
    /// How far its endpoints reach each other; only with `global` it takes part in tables.
    pub connectivity_scope: Scope,
    /// The networks that it carries.
    pub networks: Vec<Name>,
    /// What it says of itself, in its own words.
    pub state: serde_json::Value,
}

/// An IPAM driver for a network that is to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateIpam {
    /// Its name.
    pub driver: Name,
    /// Options, passed to it unchanged.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// How a plugin is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PluginState {
    /// It can be called.
    Enabled,
    /// The Docker engine's operator has disabled it.
    Disabled,
    /// It does not answer, or what leads to it is wrong.
    Broken {
        /// Why.
        reason: String,
    },
}

/// A plugin of this host, one of `GET /v1/plugins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// The name by which it is found.
    pub name: String,
    /// Its id at the Docker engine, if that manages it.
    pub managed: Option<String>,
    /// Where it listens; nothing if that cannot be read.
    pub address: Option<String>,
    /// How it is.
    #[serde(flatten)]
    pub state: PluginState,
    /// What it says it can do.
    pub implements: Vec<String>,
}

/// `GET /v1/networks/{network}/endpoints/{endpoint}`: an endpoint, its table entries, and who may not have them yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointDetail {
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// The driver of its network.
    pub driver: Name,
    /// Its table entries, as this node sees them.
    pub entries: Vec<ExplainedEntry>,
    /// Whether every live member has all that this node has written in the network; nothing for another node's endpoint.
    pub applied: Option<Applied>,
}

/// An entry, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedEntry {
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// The endpoint that it is about, as its driver says.
    pub endpoint: Option<EndpointId>,
    /// What it says, as its driver says.
    pub says: BTreeMap<String, String>,
}

fn scope(scope: driver::Scope) -> Scope {
    match scope {
        driver::Scope::Local => Scope::Local,
        driver::Scope::Global => Scope::Global,
    }
}

pub(super) fn driver(view: DriverView) -> Driver {
    Driver {
        name: view.name,
        built_in: view.is_built_in,
        data_scope: scope(view.capability.data_scope),
        connectivity_scope: scope(view.capability.connectivity_scope),
        networks: view.networks,
        state: view.state,
    }
}

pub(super) fn plugin(view: PluginView) -> Plugin {
    Plugin {
        name: view.name,
        managed: match view.origin {
            Origin::Managed(id) => Some(id),
            Origin::Legacy => None,
        },
        address: view.address,
        state: match view.state {
            Health::Enabled => PluginState::Enabled,
            Health::Disabled => PluginState::Disabled,
            Health::Broken(reason) => PluginState::Broken { reason },
        },
        implements: view.capabilities.into_iter().collect(),
    }
}

pub(super) fn endpoint_detail(view: controller::EndpointDetail, names: &Names) -> EndpointDetail {
    let entry = |detail: controller::EntryDetail| {
        let explained = detail.explained.unwrap_or_default();
        ExplainedEntry {
            entry: views::entry(detail.entry),
            endpoint: explained.endpoint,
            says: explained.says,
        }
    };
    EndpointDetail {
        endpoint: views::endpoint(view.view, names),
        driver: view.driver,
        entries: view.entries.into_iter().map(entry).collect(),
        applied: view.applied.map(views::applied),
    }
}
