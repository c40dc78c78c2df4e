//! What the controller answers → what the control API says.

use std::collections::BTreeMap;

use super::{
    counters,
    error::{Code, Failure},
    members,
    types::{
        Applied, Blob, Change, ChangeKind, DockerEngine, Endpoint, EndpointState, Entry, Interface,
        Lacking, ListedNetwork, Network, NetworkCounts, NetworkDetail, PutMode, RaftStatus, Route,
        Sandbox, Setup, Status, SyncCounts, SyncState, Table, Version,
    },
};
use crate::{
    controller::{
        self, AppliedView, EndpointView, EngineView, MemberView, NetworkView, StatusView, TableView,
    },
    core::{
        model::{Name, NetworkId, NetworkRecord, NodeId},
        netdb::{self, EntryView, Reason},
        watch::Revised,
    },
    runtime::streams::StreamStats,
};

/// The names of nodes and networks, as far as they are known.
pub(super) struct Names {
    pub(super) nodes: BTreeMap<NodeId, Name>,
    networks: BTreeMap<NetworkId, Name>,
}

impl Names {
    pub(super) fn of(members: &[MemberView], networks: &[NetworkRecord]) -> Self {
        let node = |view: &MemberView| Some((view.member.node, view.name.clone()?));
        let network = |record: &NetworkRecord| (record.id, record.name.clone());
        Self {
            nodes: members.iter().filter_map(node).collect(),
            networks: networks.iter().map(network).collect(),
        }
    }
}

/// A node is ready once its record is in the DB: at a start it is written after all that the node brings back from disk.
pub(super) fn status(
    view: StatusView,
    members: &[MemberView],
    streams: &StreamStats,
) -> Result<Status, Failure> {
    let ours = members
        .iter()
        .find(|view| view.member.ours)
        .ok_or_else(|| Failure::new(Code::Failed, "this node is not among its own members"))?;
    let counters = counters::of(&view.runtime, streams)
        .into_iter()
        .map(|count| (count.key(), count.value));
    let uptime = view.runtime.uptime.as_millis();
    Ok(Status {
        version: view.version.to_owned(),
        cluster: view.cluster,
        node: view.node,
        name: view.name,
        address: ours.member.addr,
        ready: ours.name.is_some(),
        uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
        leader: view.leader,
        raft: RaftStatus {
            role: view.raft.role.as_str().to_owned(),
            term: view.raft.term,
            voters: view.raft.voters,
            learners: view.raft.learners,
            applied: view.raft.applied,
            last_log: view.raft.last_log,
            waits: None,
        },
        members: members::counts(members),
        networks: network_counts(&view.networks),
        sync: sync_counts(&view.runtime.networks),
        cluster_sync: cluster_sync(&view.runtime.networks),
        endpoints: view.endpoints as u64,
        certificate: Some(view.certificate.into()),
        docker: view
            .engine
            .map(|engine| docker(engine, view.engine_problems)),
        counters: counters.collect(),
    })
}

fn docker(engine: EngineView, problems: BTreeMap<Name, String>) -> DockerEngine {
    let of_networks = problems.into_iter();
    let of_networks = of_networks.map(|(name, problem)| format!("network {name}: {problem}"));
    DockerEngine {
        version: engine.version,
        untested: engine.untested,
        problems: engine.in_the_way.into_iter().chain(of_networks).collect(),
    }
}

fn network_counts(setups: &BTreeMap<NetworkId, controller::Setup>) -> NetworkCounts {
    let mut counts = NetworkCounts::default();
    for setup in setups.values() {
        match setup {
            controller::Setup::Ready => counts.ready += 1,
            controller::Setup::Pending { .. } => counts.pending += 1,
            controller::Setup::Removing => counts.removing += 1,
        }
    }
    counts
}

fn sync_counts(states: &[(NetworkId, netdb::SyncState)]) -> SyncCounts {
    let mut counts = SyncCounts::default();
    let carried = states.iter();
    for (_, state) in carried.filter(|(network, _)| *network != NetworkId::CLUSTER) {
        match state {
            netdb::SyncState::Syncing => counts.syncing += 1,
            netdb::SyncState::Synced => counts.synced += 1,
            netdb::SyncState::Degraded => counts.degraded += 1,
        }
    }
    counts
}

fn cluster_sync(states: &[(NetworkId, netdb::SyncState)]) -> Option<SyncState> {
    let mut states = states.iter();
    let found = states.find(|(network, _)| *network == NetworkId::CLUSTER);
    found.map(|(_, state)| sync_state(*state))
}

pub(super) fn sync_state(state: netdb::SyncState) -> SyncState {
    match state {
        netdb::SyncState::Syncing => SyncState::Syncing,
        netdb::SyncState::Synced => SyncState::Synced,
        netdb::SyncState::Degraded => SyncState::Degraded,
    }
}

pub(super) fn applied(view: AppliedView) -> Applied {
    let lacking = view.lacking.into_iter();
    let lacking: Vec<Lacking> = lacking.map(|(node, name)| Lacking { node, name }).collect();
    Applied {
        network: view.network,
        version: Version {
            generation: view.version.log.generation,
            epoch: view.version.log.epoch,
            seq: view.version.seq,
        },
        applied: lacking.is_empty(),
        lacking,
    }
}

pub(super) fn network(record: NetworkRecord) -> Network {
    Network {
        id: record.id,
        name: record.name,
        driver: record.driver,
        options: record.options,
        subnets: record.subnets,
    }
}

pub(super) fn listed_network(view: controller::ListedNetwork) -> ListedNetwork {
    ListedNetwork {
        network: network(view.record),
        setup: setup(view.setup),
        sync: view.sync.map(sync_state),
    }
}

fn setup(setup: controller::Setup) -> Setup {
    match setup {
        controller::Setup::Ready => Setup::Ready,
        controller::Setup::Pending { reason } => Setup::Pending { reason },
        controller::Setup::Removing => Setup::Removing,
    }
}

pub(super) fn network_detail(view: NetworkView, names: &Names) -> NetworkDetail {
    let endpoints = view.endpoints.into_iter();
    NetworkDetail {
        network: network(view.record),
        setup: setup(view.setup),
        sync: view.sync.map(sync_state),
        endpoints: endpoints.map(|view| endpoint(view, names)).collect(),
        driver_state: view.driver_state,
        engine_problem: view.engine_problem,
    }
}

pub(super) fn endpoint(view: EndpointView, names: &Names) -> Endpoint {
    Endpoint {
        id: view.record.id,
        name: view.record.name,
        network: view.record.network,
        network_name: names.networks.get(&view.record.network).cloned(),
        node: view.node,
        node_name: names.nodes.get(&view.node).cloned(),
        address: view.record.address,
        second_address: view.record.second,
        mac: view.record.mac,
        state: match view.state {
            controller::EndpointState::Created => EndpointState::Created,
            controller::EndpointState::Joined => EndpointState::Joined,
        },
        sandbox: view.sandbox.map(sandbox),
    }
}

fn sandbox(sandbox: controller::Sandbox) -> Sandbox {
    let interface = sandbox.interface.map(|interface| Interface {
        source: interface.source,
        prefix: interface.prefix,
    });
    let routes = sandbox.routes.into_iter().map(|route| Route {
        destination: route.destination,
        via: route.via,
    });
    Sandbox {
        name: sandbox.name,
        interface,
        gateways: sandbox.gateways,
        routes: routes.collect(),
    }
}

pub(super) fn table(view: TableView) -> Table {
    Table {
        name: view.table,
        entries: view.entries as u64,
    }
}

pub(super) fn entry(view: EntryView) -> Entry {
    Entry {
        network: view.network,
        table: view.table,
        key: Blob(view.key.into_bytes()),
        value: Blob(view.value.into_bytes()),
        owner: view.owner,
        written_ms: view.written.wall().0,
        ours: view.ours,
    }
}

pub(super) fn change(revised: Revised) -> Change {
    let Revised { revision, change } = revised;
    Change {
        revision,
        kind: match change.kind {
            netdb::ChangeKind::Created => ChangeKind::Created,
            netdb::ChangeKind::Updated => ChangeKind::Updated,
            netdb::ChangeKind::Deleted(Reason::Removed) => ChangeKind::Removed,
            netdb::ChangeKind::Deleted(Reason::OwnerLeft) => ChangeKind::OwnerLeft,
            netdb::ChangeKind::Deleted(Reason::OwnerDown) => ChangeKind::OwnerDown,
            netdb::ChangeKind::Deleted(Reason::Detached) => ChangeKind::Detached,
        },
        network: change.network,
        table: change.table,
        key: Blob(change.key.into_bytes()),
        value: change.value.map(|value| Blob(value.into_bytes())),
        previous: change.previous.map(|value| Blob(value.into_bytes())),
        owner: change.owner,
        written_ms: change.written.wall().0,
        ours: change.ours,
    }
}

pub(super) fn put_mode(mode: PutMode) -> netdb::PutMode {
    match mode {
        PutMode::Create => netdb::PutMode::Create,
        PutMode::Update => netdb::PutMode::Update,
        PutMode::Upsert => netdb::PutMode::Upsert,
    }
}
