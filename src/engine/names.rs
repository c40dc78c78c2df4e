//! Aliases of containers, which only a container's own document tells.
//!
//! The engine answers for a container that is starting only once it has started, so nobody waits for these: a name is
//! published without aliases first.

use std::{collections::BTreeMap, time::Duration};

use tokio::task::JoinSet;

use super::listing::{Container, Endpoint, Network};
use crate::{core::model::Name, plugin::Client};

/// How many containers are asked for at once.
const ASKED_MAX: usize = 32;
/// How many may wait for their turn; one more is asked for when something is heard of it again.
const WAITING_MAX: usize = 4096;
/// How long a container may take to start.
const START_MAX: Duration = Duration::from_secs(120);
/// What the id begins with under which a container is listed that has not come so far.
pub(super) const UNBORN: &str = "ep-";
/// How many names an endpoint may have.
const NAMES_MAX: usize = 64;

/// The containers that were asked for. No more than the engine has that are not destroyed.
#[derive(Default)]
pub(super) struct Containers {
    /// Nothing: the engine did not answer for it.
    known: BTreeMap<String, Option<Container>>,
    asked: JoinSet<(String, Option<Container>)>,
    waiting: Vec<String>,
}

/// The names of an endpoint, the container's first, and whether its aliases are known and among them.
pub(super) type Named = (Vec<Name>, bool);

impl Containers {
    /// Asks for a container; what is known of it stays until the answer.
    pub(super) fn ask(&mut self, client: &Client, id: &str) {
        if self.asked.len() >= ASKED_MAX {
            if self.waiting.len() < WAITING_MAX && !self.waiting.iter().any(|waits| waits == id) {
                self.waiting.push(id.to_owned());
            }
            return;
        }
        let (client, id) = (client.clone(), id.to_owned());
        self.asked.spawn(async move {
            let path = format!("/containers/{id}/json");
            let got = client.within(START_MAX).get(&path).await;
            (id, got.ok())
        });
    }

    /// Asks for a container that nothing is known of.
    pub(super) fn ask_if_new(&mut self, client: &Client, id: &str) {
        // A container that has not come so far is listed under another id.
        if !self.known.contains_key(id) && !id.starts_with(UNBORN) {
            self.ask(client, id);
        }
    }

    /// Waits for the next answer, for ever if nothing was asked; returns whether it is another than before.
    pub(super) async fn answered(&mut self, client: &Client) -> bool {
        let Some(answer) = self.asked.join_next().await else {
            return std::future::pending().await;
        };
        let Ok((id, container)) = answer else {
            return false;
        };
        if let Some(next) = self.waiting.pop() {
            self.ask(client, &next);
        }
        let before = self.known.insert(id.clone(), container).flatten();
        self.known.get(&id).map(Option::as_ref) != Some(before.as_ref())
    }

    /// Forgets a container that is no more.
    pub(super) fn forget(&mut self, id: &str) {
        self.known.remove(id);
    }

    /// Forgets everything: the engine may have changed meanwhile.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the names of an endpoint, the container's first, and whether its aliases are known and among them.
    pub(super) fn names(&self, network: &Network, id: &str, endpoint: &Endpoint) -> Named {
        let known = self.known.get(id).and_then(Option::as_ref);
        let aliases = known.into_iter();
        // The engine adds the beginning of the container's id, which nobody asks for elsewhere.
        let aliases = aliases
            .flat_map(|container| container.aliases(network))
            .filter(|alias| !id.starts_with(alias));
        let names = std::iter::once(endpoint.name.as_str()).chain(aliases);
        let names = names.filter_map(|name| match Name::new(name) {
            Ok(name) => Some(name),
            Err(error) => {
                tracing::debug!(name, %error, "a container's name cannot be one here");
                None
            }
        });
        (names.take(NAMES_MAX).collect(), known.is_some())
    }
}
