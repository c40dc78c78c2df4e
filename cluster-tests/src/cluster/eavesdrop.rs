//! A watch whose events are looked at as they come.

use anyhow::{Context, bail, ensure};
use tokio::time::timeout;
use weft::api::{
    client::{Client, Watch},
    http::types::{Change, Entry, WatchEvent, WatchQuery},
};

use super::DEADLINE;

/// A watch of one network on one node, past its beginning: what comes now are changes.
#[derive(Debug)]
pub struct Eavesdrop {
    watch: Watch,
    /// What was there when it began.
    pub there: Vec<Entry>,
}

impl Eavesdrop {
    /// Begins to watch all tables of a network.
    pub async fn begin(client: &Client, network: &str) -> anyhow::Result<Self> {
        let query = WatchQuery {
            network: network.to_owned(),
            ..WatchQuery::default()
        };
        let mut begun = Self {
            watch: client.watch(&query).await?,
            there: Vec::new(),
        };
        loop {
            match begun.event().await? {
                WatchEvent::Entry(entry) => begun.there.push(entry),
                WatchEvent::Synced { .. } => return Ok(begun),
                other @ (WatchEvent::Change(_) | WatchEvent::State { .. } | WatchEvent::Lagged) => {
                    bail!("a watch began with {other:?}")
                }
            }
        }
    }

    /// Waits for the next change.
    pub async fn change(&mut self) -> anyhow::Result<Change> {
        loop {
            match self.event().await? {
                WatchEvent::Change(change) => return Ok(change),
                WatchEvent::State { .. } => {}
                other @ (WatchEvent::Entry(_) | WatchEvent::Synced { .. } | WatchEvent::Lagged) => {
                    bail!("not a change: {other:?}")
                }
            }
        }
    }

    /// Waits for the change of this key and returns it with all that came before it.
    pub async fn until_key(&mut self, key: &str) -> anyhow::Result<(Vec<Change>, Change)> {
        let mut before = Vec::new();
        loop {
            let change = self.change().await?;
            if change.key.as_text() == Some(key) {
                return Ok((before, change));
            }
            before.push(change);
            ensure!(before.len() < 10_000, "{key} does not come: {before:?}");
        }
    }

    async fn event(&mut self) -> anyhow::Result<WatchEvent> {
        let next = timeout(DEADLINE, self.watch.next()).await;
        let event = next.context("a watch has nothing to tell")?;
        Ok(event.context("a watch has ended")??)
    }
}
