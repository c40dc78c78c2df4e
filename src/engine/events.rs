//! The engine's events, read as they come: who dies is taken out of the DB at once, whatever else is being done; the rest waits for
//! its turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    listing::{Actor, Event},
    names::UNBORN,
};
use crate::{
    controller::Controller,
    core::model::{EndpointId, NetworkId},
    plugin::Lines,
};

/// How many events may wait for their turn. At the bound the engine's stream is not read on.
pub(super) const WAITING_MAX: usize = 1024;

/// An endpoint in its network.
pub(super) type Place = (NetworkId, EndpointId);

/// Which endpoints each container has had, of those that are not destroyed.
#[derive(Clone, Default)]
pub(super) struct Places {
    of: Arc<Mutex<BTreeMap<String, BTreeSet<Place>>>>,
}

impl Places {
    /// Notes that a container has an endpoint.
    pub(super) fn note(&self, container: &str, place: Place) {
        if !container.starts_with(UNBORN) {
            let mut all = self.lock();
            all.entry(container.to_owned()).or_default().insert(place);
        }
    }

    /// Takes the endpoints that a container has had: it has ended.
    pub(super) fn take(&self, container: &str) -> BTreeSet<Place> {
        self.lock().remove(container).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<Place>>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an event may have changed.
#[derive(Debug)]
pub(super) enum News {
    /// It is not understood: anything.
    Unknown,
    /// Something else than a container's end.
    Event(Event),
}

/// Reads the engine's events until it goes.
pub(super) async fn hear(
    mut events: Lines,
    (controller, places): (Controller, Places),
    news: mpsc::Sender<News>,
) {
    while let Ok(Some(line)) = events.next().await {
        let heard = match serde_json::from_slice::<Event>(&line) {
            Ok(event) if is_end(&event) => {
                hide(&controller, places.take(&event.actor.id)).await;
                continue;
            }
            Ok(event) => News::Event(event),
            Err(error) => {
                tracing::debug!(%error, "an event of the engine is not understood");
                News::Unknown
            }
        };
        if news.send(heard).await.is_err() {
            return;
        }
    }
}

/// Takes a container's endpoints out of the DB: the engine tells the plugin so only when it has cleared up after it.
async fn hide(controller: &Controller, places: BTreeSet<Place>) {
    for (network, endpoint) in places {
        match controller.held_endpoint_hide(network, endpoint).await {
            Ok(()) => tracing::debug!(%network, %endpoint, "its container has ended"),
            Err(error) => {
                tracing::debug!(%network, %endpoint, %error, "an endpoint is seen until it leaves");
            }
        }
    }
}

/// Whether a container has ended, or was sent what no process survives.
fn is_end(event: &Event) -> bool {
    match (event.kind.as_str(), event.action.as_str()) {
        ("container", "die") => true,
        ("container", "kill") => is_last(&event.actor),
        _ => false,
    }
}

fn is_last(actor: &Actor) -> bool {
    let signal = actor.attributes.get("signal").map(String::as_str);
    matches!(signal, Some("9" | "KILL" | "SIGKILL"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_has_ended_when_it_died_or_was_sent_what_no_process_survives() {
        let event = |kind: &str, action: &str, signal: Option<&str>| {
            let attributes = match signal {
                Some(signal) => json!({ "signal": signal }),
                None => json!(null),
            };
            let actor = json!({"ID": "c1", "Attributes": attributes});
            serde_json::from_value(json!({"Type": kind, "Action": action, "Actor": actor})).unwrap()
        };

        for (kind, action, signal, ended) in [
            ("container", "die", None, true),
            ("container", "kill", Some("9"), true),
            ("container", "kill", Some("SIGKILL"), true),
            ("container", "kill", Some("15"), false),
            ("container", "kill", Some("1"), false),
            ("container", "kill", None, false),
            ("container", "stop", None, false),
            ("network", "die", None, false),
        ] {
            let told = format!("{kind} {action} {signal:?}");
            assert_eq!(is_end(&event(kind, action, signal)), ended, "{told}");
        }
    }
}
