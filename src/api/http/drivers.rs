//! The JSON of drivers, of the plugins they may come from, and of an endpoint looked at closely; and how it is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    types::{Applied, Endpoint, Entry},
    views::{self, Names},
};
use crate::{
    controller::{self, DriverCapability, DriverView, PluginView},
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

/// What a driver is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// It carries networks.
    Network,
    /// It hands out pools and addresses.
    Ipam,
    /// It hands out what networks need in the whole cluster.
    Allocator,
}

impl DriverKind {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Ipam => "ipam",
            Self::Allocator => "allocator",
        }
    }
}

/// A driver: one of `GET /v1/drivers`, or of `GET /v1/drivers/{driver}`, which has one of each kind that the name stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub kind: DriverKind,
    /// Whether it is part of Weft; otherwise it is a plugin.
    pub built_in: bool,
    /// Where the plugin listens.
    pub address: Option<String>,
    /// Whether it still knows what it was told; a plugin that ended does not, until it is back.
    pub alive: bool,
    /// Of a network driver: where its networks' resources are allocated. Of an allocator: `global`.
    pub data_scope: Option<Scope>,
    /// Of a network driver: how far its endpoints reach each other; only with `global` it takes part in tables.
    pub connectivity_scope: Option<Scope>,
    /// Of an IPAM driver: `mac` and `replay`, if each request must have the one and it must hear the other after its restart.
    /// Of an allocator: `subnets` and `vxlan`, which are agreed with a network, and `asked`, if the leader's node asks it.
    pub needs: Vec<String>,
    /// The networks that use it.
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
    /// How many users a managed plugin has through this node: one for each network and kind of driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<u32>,
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
    let words = |all: &[(bool, &str)]| {
        let said = all.iter().filter(|(is_said, _)| *is_said);
        said.map(|(_, word)| (*word).to_owned()).collect()
    };
    let (kind, scopes, needs) = match view.capability {
        DriverCapability::Network(can) => {
            let scopes = (
                Some(scope(can.data_scope)),
                Some(scope(can.connectivity_scope)),
            );
            (DriverKind::Network, scopes, Vec::new())
        }
        DriverCapability::Ipam(ipam) => {
            let needs = words(&[(ipam.requires_mac, "mac"), (ipam.requires_replay, "replay")]);
            (DriverKind::Ipam, (None, None), needs)
        }
        DriverCapability::Allocator { agreed, is_asked } => {
            let needs = words(&[
                (agreed.subnets, "subnets"),
                (agreed.vxlan, "vxlan"),
                (is_asked, "asked"),
            ]);
            (DriverKind::Allocator, (Some(Scope::Global), None), needs)
        }
    };
    Driver {
        name: view.name,
        kind,
        built_in: view.address.is_none(),
        address: view.address,
        alive: view.is_alive,
        data_scope: scopes.0,
        connectivity_scope: scopes.1,
        needs,
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
        users: view.users,
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
