//! From an engine's coming to its going: its events, and what else may make a pass needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Askers, Bell, EngineError,
    events::{News, Place, Places, WAITING_MAX, hear},
    leaks::{DOUBT, Suspects},
    listing::{Event, Network},
    names::{Containers, Named},
    standing::{Host, Version},
};
use crate::{
    controller::{Controller, EngineView, ListedNetwork},
    core::model::{NetworkId, NetworkRecord},
    plugin::Client,
};

/// Events of containers and networks.
const EVENTS: &str =
    "/events?filters=%7B%22type%22%3A%7B%22container%22%3Atrue%2C%22network%22%3Atrue%7D%7D";
/// How often everything is compared though nothing was heard.
const SLOW: Duration = Duration::from_secs(30);
/// How soon a pass that was not whole is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows one engine.
pub(super) struct Follower {
    pub(super) client: Client,
    pub(super) driver: String,
    pub(super) controller: Controller,
    pub(super) bell: Bell,
    pub(super) askers: watch::Sender<Askers>,
    pub(super) containers: Containers,
    pub(super) places: Places,
    /// Which names each endpoint was last given, and took, so that a pass does not give all of them again. Forgotten on the slow clock.
    pub(super) named: BTreeMap<Place, Named>,
    pub(super) suspects: Suspects,
    /// Networks of Weft that were there since this node started, so that one that is there no longer was removed.
    pub(super) seen: BTreeSet<NetworkId>,
    /// What was last said of a network, so that it is said once.
    pub(super) told: BTreeMap<String, String>,
    /// What kind of engine it is, as it was last seen.
    pub(super) standing: EngineView,
    /// When its swarm was last looked at, and which networks of it and of ours there were.
    pub(super) looked: Option<(Instant, BTreeSet<String>)>,
}

/// What is to be compared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All networks.
    All,
    /// The endpoints of these networks of the engine.
    Networks(BTreeSet<String>),
}

impl Follower {
    /// Follows the engine until it goes; an error if it is not there.
    pub(super) async fn follow(&mut self) -> Result<(), EngineError> {
        // The stream first: then nothing can happen unheard after the lists.
        let events = self.client.lines(EVENTS).await?;
        tracing::info!(engine = %self.client.address(), "following the Docker engine");
        self.containers.clear();
        self.places = Places::default();
        self.named.clear();
        self.note_version().await?;
        let (tell, news) = mpsc::channel(WAITING_MAX);
        let ends = (self.controller.clone(), self.places.clone());
        tokio::select! {
            () = hear(events, ends, tell) => {}
            () = self.keep(news) => {}
        }
        Ok(())
    }

    /// Keeps the engine in step until there is no more news.
    async fn keep(&mut self, mut news: mpsc::Receiver<News>) {
        let mut setups = self.controller.setups();
        let mut extent = Extent::All;
        loop {
            let next = self.compare(extent).await;
            let client = self.client.clone();
            extent = tokio::select! {
                heard = news.recv() => match heard {
                    Some(News::Event(event)) => self.handle_event(event),
                    Some(News::Unknown) => Extent::All,
                    None => return,
                },
                // The node's controller outlives us.
                _ = setups.changed() => Extent::All,
                networks = self.bell.rung() => Extent::Networks(networks),
                changed = self.containers.answered(&client) => match changed {
                    true => Extent::All,
                    false => Extent::Networks(BTreeSet::new()),
                },
                () = sleep_until(next) => {
                    self.named.clear();
                    Extent::All
                }
            };
        }
    }

    /// Makes a pass, and returns when the next is due.
    async fn compare(&mut self, extent: Extent) -> Instant {
        let now = Instant::now();
        if extent == Extent::Networks(BTreeSet::new()) {
            return now + SLOW;
        }
        match self.pass(extent).await {
            Ok(true) if self.suspects.some() => now + DOUBT,
            Ok(true) => now + SLOW,
            Ok(false) => now + AGAIN,
            Err(error) => {
                self.tell("", &error.to_string());
                now + AGAIN
            }
        }
    }

    /// Says something of a network of the engine, unless it was the last that was said of it.
    pub(super) fn tell(&mut self, network: &str, what: &str) {
        let last = self.told.insert(network.to_owned(), what.to_owned());
        if last.as_deref() != Some(what) {
            tracing::warn!(
                network,
                reason = what,
                "the Docker engine is not in step yet"
            );
        }
    }

    /// Asks for the engine's version, and says once if Weft is tested with others.
    async fn note_version(&mut self) -> Result<(), EngineError> {
        let version: Version = self.client.get("/version").await?;
        let untested = version.untested();
        if let Some(untested) = &untested
            && self.standing.untested.as_ref() != Some(untested)
        {
            tracing::warn!("{untested}");
        }
        self.standing = EngineView {
            version: Some(version.version),
            untested,
            in_the_way: self.standing.in_the_way.take(),
        };
        self.controller.engine_is(self.standing.clone());
        Ok(())
    }

    /// Shows that the engine is not there.
    pub(super) fn note_gone(&mut self) {
        self.looked = None;
        self.controller.engine_is(EngineView {
            version: None,
            ..self.standing.clone()
        });
    }

    /// Looks whether the engine's swarm is in our way, and says so once: when networks of either have come or gone, and on the slow
    /// clock.
    pub(super) async fn look_at_swarm(
        &mut self,
        listed: &[Network],
        wanted: &[ListedNetwork],
    ) -> Result<(), EngineError> {
        let theirs = listed.iter().filter(|network| network.is_swarms());
        let ours = wanted.iter().map(|state| state.record.name.to_string());
        let seen: BTreeSet<String> = theirs
            .map(|network| network.id.clone())
            .chain(ours)
            .collect();
        let now = Instant::now();
        if let Some((at, before)) = &self.looked
            && now.duration_since(*at) < SLOW / 2
            && *before == seen
        {
            return Ok(());
        }
        let host: Host = self.client.get("/info").await?;
        let wanted: Vec<&NetworkRecord> = wanted.iter().map(|state| &state.record).collect();
        let in_the_way = host.in_the_way(listed, &wanted);
        if let Some(told) = &in_the_way
            && self.standing.in_the_way.as_ref() != Some(told)
        {
            tracing::warn!("{told}");
        }
        self.standing.in_the_way = in_the_way;
        self.controller.engine_is(self.standing.clone());
        self.looked = Some((now, seen));
        Ok(())
    }

    /// Returns what an event may have changed.
    fn handle_event(&mut self, event: Event) -> Extent {
        let nothing = Extent::Networks(BTreeSet::new());
        let one = |id: String| Extent::Networks(BTreeSet::from([id]));
        match (event.kind.as_str(), event.action.as_str()) {
            // Asked before the start, which keeps the engine from answering for a while.
            ("container", "create" | "start" | "rename") => {
                self.containers.ask(&self.client, &event.actor.id);
                nothing
            }
            ("container", "destroy") => {
                self.containers.forget(&event.actor.id);
                self.places.take(&event.actor.id);
                nothing
            }
            ("network", "connect") => {
                if let Some(container) = event.actor.attributes.get("container") {
                    self.containers.ask(&self.client, container);
                }
                one(event.actor.id)
            }
            ("network", "create" | "destroy") => Extent::All,
            _ => nothing,
        }
    }
}
