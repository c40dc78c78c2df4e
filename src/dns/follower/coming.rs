//! Endpoints that have come, and to which there may be no way yet: who asks for a name at once sends at once, and where nobody
//! answers for the address the kernel asks again a second later.
//!
//! **Invariant:** a name waits for its way [`LAID_WITHIN`] at most; nobody's going waits.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::Laid;
use crate::core::model::{EndpointId, EndpointRecord};

/// How long a name waits: who lays the way may have failed, and says so itself.
const LAID_WITHIN: Duration = Duration::from_millis(100);

/// Those that wait. No more than the network DB has.
pub(super) struct Coming {
    laid: watch::Receiver<Laid>,
    waiting: BTreeMap<EndpointId, Waiting>,
}

struct Waiting {
    record: EndpointRecord,
    revision: u64,
    until: Instant,
}

impl Waiting {
    fn may_come(&self, laid: &Laid, now: Instant) -> bool {
        // Where nobody lays ways there is nothing to wait for.
        let laid = laid.get(&self.record.network);
        laid.is_none_or(|laid| *laid >= self.revision) || self.until <= now
    }
}

impl Coming {
    pub(super) fn new(laid: watch::Receiver<Laid>) -> Self {
        let waiting = BTreeMap::new();
        Self { laid, waiting }
    }

    /// Takes an endpoint that came, or was changed, with this revision.
    pub(super) fn add(&mut self, record: EndpointRecord, revision: u64) {
        let until = Instant::now() + LAID_WITHIN;
        let waiting = Waiting {
            record,
            revision,
            until,
        };
        self.waiting.insert(waiting.record.id, waiting);
    }

    /// Forgets one that has gone.
    pub(super) fn forget(&mut self, id: EndpointId) {
        self.waiting.remove(&id);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Waits for those that may come, for ever while none waits. What was not taken still waits.
    pub(super) async fn next(&mut self) -> Vec<EndpointRecord> {
        loop {
            let now = Instant::now();
            let laid = self.laid.borrow_and_update().clone();
            let come = self
                .waiting
                .extract_if(.., |_, waiting| waiting.may_come(&laid, now));
            let come: Vec<EndpointRecord> = come.map(|(_, waiting)| waiting.record).collect();
            if !come.is_empty() {
                return come;
            }
            let Some(first) = self.waiting.values().map(|waiting| waiting.until).min() else {
                return std::future::pending().await;
            };
            tokio::select! {
                Ok(()) = self.laid.changed() => {}
                () = sleep_until(first) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::{Name, NetworkId};

    const LAYS: NetworkId = NetworkId(1);
    const NOBODY_LAYS: NetworkId = NetworkId(2);

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_comes_once_its_way_is_laid_and_at_once_where_nobody_lays_any() {
        let (lay, laid) = watch::channel(Laid::from([(LAYS, 4)]));
        let mut coming = Coming::new(laid);
        let begun = Instant::now();
        coming.add(endpoint(1, LAYS), 4);
        coming.add(endpoint(2, LAYS), 5);
        coming.add(endpoint(3, LAYS), 6);
        coming.add(endpoint(4, NOBODY_LAYS), 7);

        let at_once = ids(coming.next().await);
        lay.send_modify(|laid| *laid = [(LAYS, 5)].into());
        let later = ids(coming.next().await);
        let took = begun.elapsed();

        assert_eq!((at_once, later), (vec![1, 4], vec![2]));
        assert_eq!(took, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_waits_so_long_and_no_longer_and_not_when_it_has_gone() {
        let (_lay, laid) = watch::channel(Laid::from([(LAYS, 0)]));
        let mut coming = Coming::new(laid);
        let begun = Instant::now();
        coming.add(endpoint(1, LAYS), 1);
        coming.add(endpoint(2, LAYS), 2);
        coming.forget(EndpointId(2));

        assert_eq!(ids(coming.next().await), [1]);
        assert_eq!(begun.elapsed(), LAID_WITHIN);
    }

    fn ids(come: Vec<EndpointRecord>) -> Vec<u128> {
        come.iter().map(|record| record.id.0).collect()
    }

    fn endpoint(id: u128, network: NetworkId) -> EndpointRecord {
        EndpointRecord {
            id: EndpointId(id),
            network,
            name: Name::new("web").unwrap(),
            address: None,
            second: None,
            mac: "02:00:00:00:00:01".parse().unwrap(),
        }
    }
}
