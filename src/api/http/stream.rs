//! `GET /v1/watch`, writing side: a watcher → server-sent events.

use std::{convert::Infallible, vec};

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{types::WatchEvent, views};
use crate::{
    core::netdb::EntryView,
    runtime::{self, Watcher},
};

/// What is still to be said before the watcher is asked again.
#[derive(Default)]
struct Pending {
    entries: vec::IntoIter<EntryView>,
    synced: Option<u64>,
}

struct Following {
    watcher: Watcher,
    pending: Pending,
    stop: CancellationToken,
    /// Given back when the stream goes.
    _slot: OwnedSemaphorePermit,
}

/// Returns the events of a watcher, until the daemon stops. A snapshot is written entry by entry, as it is read.
pub(super) fn events(
    watcher: Watcher,
    from: Option<u64>,
    (slot, stop): (OwnedSemaphorePermit, CancellationToken),
) -> impl Stream<Item = Result<Event, Infallible>> {
    let following = Following {
        watcher,
        pending: Pending {
            synced: from,
            ..Pending::default()
        },
        stop,
        _slot: slot,
    };
    stream::unfold(following, |mut following| async {
        let event = following.next().await?;
        Some((Ok(written(&event)), following))
    })
}

impl Following {
    async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(entry) = self.pending.entries.next() {
                return Some(WatchEvent::Entry(views::entry(entry)));
            }
            if let Some(revision) = self.pending.synced.take() {
                return Some(WatchEvent::Synced { revision });
            }
            let heard = tokio::select! {
                heard = self.watcher.next() => heard.ok()?,
                () = self.stop.cancelled() => return None,
            };
            match heard {
                runtime::WatchEvent::Snapshot { entries, revision } => {
                    self.pending = Pending {
                        entries: entries.into_iter(),
                        synced: Some(revision),
                    };
                }
                runtime::WatchEvent::Change(revised) => {
                    return Some(WatchEvent::Change(views::change(revised)));
                }
                runtime::WatchEvent::State { network, state } => {
                    let sync = state.map(views::sync_state);
                    return Some(WatchEvent::State { network, sync });
                }
                runtime::WatchEvent::Lagged => return Some(WatchEvent::Lagged),
            }
        }
    }
}

/// Writes an event: its kind and, for a change, its revision in the stream's own fields too, for `EventSource` readers.
fn written(event: &WatchEvent) -> Event {
    let data = serde_json::to_string(event).expect("our own types have string keys");
    let named = Event::default().data(data);
    match event {
        WatchEvent::Entry(_) => named.event("entry"),
        WatchEvent::Synced { revision } => named.event("synced").id(revision.to_string()),
        WatchEvent::Change(change) => named.event("change").id(change.revision.to_string()),
        WatchEvent::State { .. } => named.event("state"),
        WatchEvent::Lagged => named.event("lagged"),
    }
}
