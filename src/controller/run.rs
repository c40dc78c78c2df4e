//! What runs beside the use cases: bringing back what is on disk, following networks, feeding the agreement, retrying removals.

use std::{collections::BTreeMap, time::Duration};

use bincode::{Decode, Encode};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    Controller, ControllerError, allocation,
    network::networks_table,
    node::{VERSION, nodes_table},
    removal::{FIRST_RETRY, LAST_RETRY},
};
use crate::{
    core::{
        model::{
            Key, Labels, NetworkId, NetworkRecord, NodeId, NodeRecord, TableEntry, TableName, Value,
        },
        netdb::{ChangeKind, EntryView, PutMode, Reason},
        watch::{Filter, Revised},
        wire::codec,
    },
    raft::{ClusterLog, Hint, Leadership},
    runtime::{PutError, Stopped, WatchEvent},
    store::StoredEndpoint,
};

/// What a node says that leads.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
struct Leads {
    /// In which term.
    term: u64,
    /// Who votes.
    voters: Vec<NodeId>,
}

/// The label of what fails together.
const ZONE: &str = "zone";
/// How often the agreement is told who is alive.
const MEMBERS_EVERY: Duration = Duration::from_millis(500);
/// How long use cases that are under way may take once the node stops.
const DRAIN: Duration = Duration::from_secs(5);

impl Controller {
    /// Brings back what is on disk, then keeps the node in step with the cluster until `shutdown`.
    ///
    /// `news` is what this node's part in the agreement has to tell the cluster log.
    pub async fn run(
        self,
        news: mpsc::Receiver<ClusterLog>,
        shutdown: CancellationToken,
    ) -> Result<(), ControllerError> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().spread_news(news));
        match self.assert_all().await {
            // Stopped before it was up.
            Err(_unfinished) if shutdown.is_cancelled() => return Ok(()),
            asserted => asserted?,
        }
        tasks.spawn(self.clone().follow_networks());
        tasks.spawn(self.clone().follow_leader());
        tasks.spawn(self.clone().announce_leadership());
        tasks.spawn(self.clone().report_members());
        tasks.spawn(self.clone().retry_removals());
        tasks.spawn(self.clone().follow_removed());
        tasks.spawn(self.clone().follow_keys());
        tasks.spawn(self.clone().lead_succession());
        tasks.spawn(self.clone().ask_for_keys());
        tasks.spawn(self.clone().rotate_in_time());
        tasks.spawn(self.clone().renew_in_time());
        tasks.spawn(self.clone().return_leases());
        tasks.spawn(self.clone().publish_routes());
        tasks.spawn(self.clone().watch_pools());
        tasks.spawn(self.clone().sweep());
        let outcome = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            panicked = until_panic(&mut tasks) => Err(panicked),
        };
        self.desk.tasks.close();
        if tokio::time::timeout(DRAIN, self.desk.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("use cases were still under way when the node stopped");
        }
        tasks.shutdown().await;
        outcome
    }

    async fn spread_news(self, mut news: mpsc::Receiver<ClusterLog>) -> Result<(), Stopped> {
        while let Some(ClusterLog {
            dots, floor, last, ..
        }) = news.recv().await
        {
            self.parts.handle.cluster_log(dots, floor, last).await?;
        }
        Ok(())
    }

    /// Writes again what this node had in the DB, and then says that it has. Other nodes hear of no change.
    async fn assert_all(&self) -> Result<(), ControllerError> {
        let endpoints = self.disk(|store| store.endpoints()).await?;
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.joined) {
            self.parts.handle.attach(endpoint.record.network).await?;
            self.assert_at_last(endpoint).await?;
        }
        for (network, entry) in self.disk(|store| store.entries()).await? {
            self.parts.handle.attach(network).await?;
            self.put_at_last(network, entry).await?;
        }
        let record = NodeRecord {
            name: self.parts.name.clone(),
            version: VERSION.to_owned(),
        };
        let value = Value::new(codec::encode(&record)).expect("a node's record is short");
        let (table, key) = (nodes_table(), node_key(self.parts.node));
        let mut said = self.said_at_start().await?;
        // The node counts as ready once its name is there.
        said.push(TableEntry { table, key, value });
        for entry in said {
            self.put_at_last(NetworkId::CLUSTER, entry).await?;
        }
        self.parts.handle.ready().await?;
        tracing::info!(
            endpoints = endpoints.len(),
            "what was on disk is in the DB again"
        );
        Ok(())
    }

    async fn assert_at_last(&self, endpoint: &StoredEndpoint) -> Result<(), ControllerError> {
        while let Err(error) = self.assert(endpoint).await {
            if !passes(error)? {
                break;
            }
            tokio::time::sleep(FIRST_RETRY).await;
        }
        Ok(())
    }

    async fn put_at_last(
        &self,
        network: NetworkId,
        entry: TableEntry,
    ) -> Result<(), ControllerError> {
        loop {
            let TableEntry { table, key, value } = entry.clone();
            let put = self
                .parts
                .handle
                .put(network, (table, key, value), PutMode::Upsert);
            let Err(error) = put.await else {
                return Ok(());
            };
            if !passes(error.into())? {
                return Ok(());
            }
            tokio::time::sleep(FIRST_RETRY).await;
        }
    }

    async fn follow_networks(self) -> Result<(), Stopped> {
        let mut networks = Networks {
            controller: self.clone(),
            known: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        let mut watcher = self
            .parts
            .handle
            .watch(cluster_table(networks_table()), None);
        loop {
            let event = tokio::select! {
                event = watcher.next() => event?,
                Some(ended) = networks.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task of a network ended badly");
                    }
                    continue;
                }
            };
            match event {
                WatchEvent::Snapshot { entries, .. } => networks.handle_list(&entries),
                WatchEvent::Change(Revised { change, .. }) => {
                    match (change.value, change.previous) {
                        (Some(now), _) => networks.handle_record(&now),
                        (None, Some(before)) => networks.handle_removal(&before),
                        (None, None) => {}
                    }
                }
                // What has not come yet comes as changes; after a lag, a snapshot follows.
                WatchEvent::State { .. } | WatchEvent::Lagged => {}
            }
        }
    }

    /// Tells the agreement who leads, for nodes that are no voters, and at once when the leader's node is down.
    ///
    /// A node that leads says so under its own key, with its term. The greatest term is the truth.
    async fn follow_leader(self) -> Result<(), Stopped> {
        let (mut said, mut newest) = (BTreeMap::new(), Leads::default());
        let mut watcher = self.parts.handle.watch(cluster_table(leader_table()), None);
        loop {
            match watcher.next().await? {
                WatchEvent::Snapshot { entries, .. } => {
                    let read = entries
                        .iter()
                        .map(|entry| (entry.owner, leads(&entry.value)));
                    said = read.collect();
                }
                WatchEvent::Change(Revised { change, .. }) => {
                    match &change.value {
                        Some(value) => said.insert(change.owner, leads(value)),
                        None => said.remove(&change.owner),
                    };
                    if change.kind == ChangeKind::Deleted(Reason::OwnerDown) {
                        self.parts.raft.hint_down(change.owner);
                    }
                }
                // What has not come yet comes as changes; after a lag, a snapshot follows.
                WatchEvent::State { .. } | WatchEvent::Lagged => continue,
            }
            let leader = said.iter().max_by_key(|(_, leads)| leads.term);
            // Who voted last is known also while nobody leads.
            if let Some((_, leads)) = leader.filter(|(_, leads)| leads.term >= newest.term) {
                newest.clone_from(leads);
            }
            self.parts.raft.hint(Hint {
                leader: leader.map(|(node, _)| *node),
                voters: newest.voters.clone(),
            });
        }
    }

    /// Writes the `leader` entry while this node leads.
    async fn announce_leadership(self) -> Result<(), Stopped> {
        let raft = &self.parts.raft;
        let mut leadership = raft.leadership();
        let mut announced = None;
        loop {
            let Leadership { leader, term } = *leadership.borrow_and_update();
            let leads = (leader == Some(self.parts.node)).then(|| Leads {
                term,
                voters: raft.status().voters,
            });
            if leads != announced && self.announce(leads.as_ref()).await? {
                let before = announced.as_ref().map(|leads: &Leads| leads.term);
                if let Some(leads) = leads.as_ref().filter(|leads| Some(leads.term) != before) {
                    tracing::info!(term = leads.term, "this node leads");
                }
                announced.clone_from(&leads);
            }
            // Who votes may change meanwhile.
            let pause = match leads == announced {
                true => MEMBERS_EVERY,
                false => FIRST_RETRY,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = leadership.changed() => if changed.is_err() {
                    return Ok(());
                },
            }
        }
    }

    /// Returns whether the DB took it.
    async fn announce(&self, leads: Option<&Leads>) -> Result<bool, Stopped> {
        let (table, key) = (leader_table(), node_key(self.parts.node));
        let Some(leads) = leads else {
            return Ok(self.remove(&(NetworkId::CLUSTER, table, key)).await);
        };
        let value = Value::new(codec::encode(leads)).expect("a number and seven ids are short");
        let entry = (table, key, value);
        let put = self
            .parts
            .handle
            .put(NetworkId::CLUSTER, entry, PutMode::Upsert);
        match put.await {
            Ok(_version) => Ok(true),
            Err(PutError::Stopped(stopped)) => Err(stopped),
            Err(PutError::Write(error)) => {
                tracing::warn!(%error, "the leader's entry was not written; it is tried again");
                Ok(false)
            }
        }
    }

    async fn report_members(self) -> Result<(), Stopped> {
        let mut ticks = tokio::time::interval(MEMBERS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = self.parts.handle.members_changed();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                seen = changed.changed() => seen.map_err(|_closed| Stopped)?,
            }
            let members = self.parts.handle.members().await?;
            let alive = members.iter().filter(|member| member.state.is_alive());
            let alive: Vec<NodeId> = alive.map(|member| member.node).collect();
            // Who was let in, not who is heard of: a leader that has just started hears of nobody yet.
            let raft = &self.parts.raft;
            let all: Vec<NodeId> = raft.read(|state| state.members().keys().copied().collect());
            let labels = self.node_labels().await.unwrap_or_default();
            let zone =
                |(node, labels): (&NodeId, &Labels)| Some((*node, labels.get(ZONE)?.to_owned()));
            let zones: BTreeMap<NodeId, String> = labels.iter().filter_map(zone).collect();
            raft.set_members(&alive, &all, &zones);
        }
    }

    /// Removes what could not be removed at once, again and again, each time a little later.
    async fn retry_removals(self) -> Result<(), Stopped> {
        let removals = &self.desk.removals;
        loop {
            removals.some().await;
            let mut pause = FIRST_RETRY;
            while removals.len() > 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_RETRY);
                for place in removals.pending() {
                    let _hand = self.desk.hands.hold(place.0).await;
                    // A join may have put it again while we waited for our turn.
                    if removals.holds(&place) && self.remove(&place).await {
                        removals.settle(&place);
                    }
                }
            }
        }
    }
}

/// Waits until a task panics. One that ends in peace has lost the room it follows, which is stopping.
async fn until_panic(tasks: &mut JoinSet<Result<(), Stopped>>) -> ControllerError {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err_and(|error| error.is_panic()) {
            return ControllerError::Broken("a task of the controller panicked");
        }
    }
    std::future::pending().await
}

/// The networks this node knows of, each with its task.
struct Networks {
    controller: Controller,
    known: BTreeMap<NetworkId, Known>,
    tasks: JoinSet<()>,
}

/// A network that has a task.
struct Known {
    /// Whether it is not set up yet, since it waits for what its driver allocates.
    waits: bool,
    /// Ends the task.
    over: CancellationToken,
}

impl Networks {
    fn handle_list(&mut self, listed: &[EntryView]) {
        let records: Vec<NetworkRecord> = listed
            .iter()
            .filter_map(|entry| read(&entry.value))
            .collect();
        let listed = |id: &NetworkId| records.iter().any(|record| record.id == *id);
        let gone: Vec<NetworkId> = self
            .known
            .keys()
            .copied()
            .filter(|id| !listed(id))
            .collect();
        for network in gone {
            self.remove(network);
        }
        for record in records {
            self.add(record);
        }
    }

    fn handle_record(&mut self, value: &Value) {
        if let Some(record) = read(value) {
            self.add(record);
        }
    }

    fn handle_removal(&mut self, previous: &Value) {
        if let Some(record) = read(previous) {
            self.remove(record.id);
        }
    }

    fn add(&mut self, record: NetworkRecord) {
        match self.known.get(&record.id) {
            Some(known) if known.waits => known.over.cancel(),
            // Once it is set up, nothing of it changes.
            Some(_) => return,
            None => {}
        }
        let known = Known {
            waits: allocation::is_wanted(&record),
            over: CancellationToken::new(),
        };
        let (controller, over) = (self.controller.clone(), known.over.clone());
        match known.waits {
            true => self
                .tasks
                .spawn(controller.allocate_at_last(record.clone(), over)),
            false => self.tasks.spawn(controller.attend(record.clone(), over)),
        };
        self.known.insert(record.id, known);
    }

    fn remove(&mut self, network: NetworkId) {
        let Some(known) = self.known.remove(&network) else {
            return;
        };
        known.over.cancel();
        if known.waits {
            let controller = self.controller.clone();
            self.tasks.spawn(controller.give_up_at_last(network));
        }
    }
}

fn read(value: &Value) -> Option<NetworkRecord> {
    match codec::decode(value.as_bytes()) {
        Ok(record) => Some(record),
        Err(malformed) => {
            tracing::error!(%malformed, "a network's record is of no use to this version");
            None
        }
    }
}

/// Returns whether to try a write again. One that can never be done is left out, which keeps no other from being done.
fn passes(error: ControllerError) -> Result<bool, ControllerError> {
    if matches!(error, ControllerError::Stopped) {
        return Err(error);
    }
    let passes = matches!(error, ControllerError::Backpressure);
    if !passes {
        tracing::warn!(%error, "an entry on disk was not written to the DB again");
    }
    Ok(passes)
}

pub(super) fn cluster_table(table: TableName) -> Filter {
    Filter {
        network: Some(NetworkId::CLUSTER),
        table: Some(table),
        ..Filter::default()
    }
}

pub(super) fn node_key(node: NodeId) -> Key {
    Key::new(node.0.to_be_bytes().to_vec()).expect("8 bytes are a key")
}

/// A term that cannot be read is older than any.
fn leads(value: &Value) -> Leads {
    codec::decode(value.as_bytes()).unwrap_or_default()
}

fn leader_table() -> TableName {
    TableName::new("leader").expect("letters are a table name")
}
