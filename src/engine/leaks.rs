//! Addresses that the engine has forgotten: calls it made while this node was down are lost, and it does not repeat them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    controller::Held,
    core::model::{EndpointId, NetworkId},
};

/// How long the engine's lists must have lacked an address. A call that is under way takes milliseconds.
pub(super) const DOUBT: Duration = Duration::from_secs(5);

/// What the engine's lists show in use.
#[derive(Debug, Default)]
pub(super) struct InUse {
    pub(super) endpoints: BTreeSet<EndpointId>,
    pub(super) addresses: BTreeSet<(NetworkId, IpAddr)>,
}

impl InUse {
    fn has(&self, held: &Held) -> bool {
        let endpoint = held.endpoint.is_some_and(|id| self.endpoints.contains(&id));
        endpoint || self.addresses.contains(&(held.network, held.address))
    }
}

/// Addresses that are held and not in use, each with when that was first seen. No more than are held.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    since: BTreeMap<Held, Instant>,
}

impl Suspects {
    /// Takes what is held and what is in use, and returns what may be given back.
    pub(super) fn judge(&mut self, held: Vec<Held>, in_use: &InUse, now: Instant) -> Vec<Held> {
        let unused: BTreeSet<Held> = held.into_iter().filter(|held| !in_use.has(held)).collect();
        self.since.retain(|held, _| unused.contains(held));
        for held in unused {
            self.since.entry(held).or_insert(now);
        }
        let leaked = self.since.iter();
        let leaked = leaked.filter(|(_, since)| now.duration_since(**since) >= DOUBT);
        leaked.map(|(held, _)| *held).collect()
    }

    /// Returns whether something must be looked at again soon.
    pub(super) fn some(&self) -> bool {
        !self.since.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_is_given_back_only_after_the_engine_lacked_it_for_a_while() {
        let held = |last: u8, endpoint: Option<u128>| Held {
            network: NetworkId(1),
            address: [10, 0, 0, last].into(),
            endpoint: endpoint.map(EndpointId),
        };
        let all = vec![
            held(2, Some(2)),
            held(3, None),
            held(4, Some(4)),
            held(5, None),
        ];
        let mut in_use = InUse::default();
        in_use.endpoints.insert(EndpointId(2));
        in_use
            .addresses
            .insert((NetworkId(1), [10, 0, 0, 3].into()));
        let mut suspects = Suspects::default();

        let at_once = suspects.judge(all.clone(), &in_use, Instant::now());
        tokio::time::advance(DOUBT).await;
        in_use
            .addresses
            .insert((NetworkId(1), [10, 0, 0, 5].into()));
        let later = suspects.judge(all, &in_use, Instant::now());

        assert_eq!(at_once, []);
        assert_eq!(later, [held(4, Some(4))]);
    }
}
