//! What depends on the size of the cluster: it follows while the cluster grows and shrinks, without a restart.

use std::num::{NonZeroU8, NonZeroUsize};

use foca::PeriodicParams;

use super::{Config, Membership, machine::note_refusal, packet::PREAMBLE_LEN};
use crate::core::wire::record::BODY_MAX;

/// What depends on the size of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuned {
    /// How many nodes are alive, this one included.
    pub nodes: usize,
    /// How often one change rides along (SWIM §4.1).
    pub rides: u8,
}

impl Membership {
    /// Returns the figures that it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns for how large a cluster it is tuned now.
    pub fn tuned(&self) -> Tuned {
        Tuned {
            nodes: self.tuned_for,
            rides: self.config.transmissions_among(self.tuned_for),
        }
    }

    /// Lets changes ride along as often as a cluster of this size needs.
    pub(super) fn retune(&mut self) {
        let nodes = self.table.alive_count() + 1;
        if nodes == self.tuned_for {
            return;
        }
        self.tuned_for = nodes;
        let tuned = self.foca.set_config(foca_config(&self.config, nodes));
        note_refusal(tuned);
    }
}

pub(super) fn foca_config(config: &Config, nodes: usize) -> foca::Config {
    let at_least_one = |number: usize| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
    let rides = config.transmissions_among(nodes);
    foca::Config {
        probe_period: config.probe_period,
        probe_rtt: config.probe_timeout,
        num_indirect_probes: at_least_one(config.indirect_probes),
        max_transmissions: NonZeroU8::new(rides).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: config.suspect_for,
        // We forget on our own, so that memory is bounded by number too.
        remove_down_after: None,
        max_packet_size: at_least_one(PREAMBLE_LEN + BODY_MAX),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams {
            frequency: config.announce_every,
            num_members: NonZeroUsize::MIN,
        }),
        // We announce on our own, so that members that left are not asked.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: config.gossip_every,
            num_members: at_least_one(config.gossip_to),
        }),
    }
}
