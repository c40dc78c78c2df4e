//! How often to probe, how long to wait: three profiles, each figure of which can be set.

use std::{ops::Range, time::Duration};

use serde::{Deserialize, Serialize};

use crate::core::model::Mutated;

/// How patient membership is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One data centre.
    #[default]
    Lan,
    /// Between data centres.
    Wan,
    /// One machine, for tests and demonstrations.
    Local,
}

impl Profile {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
            Self::Local => "local",
        }
    }
}

/// How this node probes and spreads what it learns. All nodes of a cluster should use the same profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where the figures come from that nobody set.
    pub profile: Profile,
    /// How often a member is probed. A probe that has no answer by then makes its target suspect.
    ///
    /// **Invariant:** longer than `probe_timeout`, so that an indirect probe has time.
    pub probe_period: Duration,
    /// How long to wait for a direct answer before others are asked to probe.
    pub probe_timeout: Duration,
    /// How many others are asked to probe.
    pub indirect_probes: usize,
    /// Whether a member that did not answer within `probe_timeout` is asked on a stream too.
    pub stream_ping: bool,
    /// How long a neighbour on the ring may be silent before it is probed out of turn.
    ///
    /// **Invariant:** longer than digests of the network DB are apart, which is up to a tenth more than on average; or every
    /// neighbour is probed all the time.
    pub neighbour_silence: Duration,
    /// How long a suspect has to refute. It need not grow with the cluster, because a suspect is told directly.
    pub suspect_for: Duration,
    /// How often changes ride to `gossip_to` random members, while there are any.
    pub gossip_every: Duration,
    /// To how many members changes ride at once.
    pub gossip_to: usize,
    /// How many copies of each datagram are sent: one that is lost rarely loses the other.
    pub copies: u8,
    /// How long after a copy the next one goes, drawn at random: bursts of loss are shorter.
    pub copy_gap: Range<Duration>,
    /// How often a random member is asked for members that are not known yet.
    pub announce_every: Duration,
    /// How often a random member that is down is asked whether it returned: heals a partition.
    pub announce_down_every: Duration,
    /// How often known members are asked to answer while nobody is alive; up to eight times slower when nobody does.
    pub announce_retry: Duration,
    /// How long a member that is down or has left is remembered.
    pub remember_down_for: Duration,
    /// What is broken on purpose; nothing.
    pub mutated: Mutated,
}

impl Config {
    /// Returns the figures of a profile.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::Lan => Self::lan(),
            Profile::Wan => Self::wan(),
            Profile::Local => Self::local(),
        }
    }

    /// One site: a crash is noticed in about two seconds, for about half a kilobyte a second.
    pub fn lan() -> Self {
        Self {
            profile: Profile::Lan,
            probe_period: Duration::from_millis(450),
            probe_timeout: Duration::from_millis(150),
            indirect_probes: 3,
            stream_ping: true,
            neighbour_silence: Duration::from_millis(1_200),
            suspect_for: Duration::from_millis(700),
            gossip_every: Duration::from_millis(100),
            gossip_to: 3,
            copies: 2,
            copy_gap: Duration::from_millis(5)..Duration::from_millis(10),
            announce_every: Duration::from_secs(30),
            announce_down_every: Duration::from_secs(5),
            announce_retry: Duration::from_secs(1),
            remember_down_for: Duration::from_hours(24),
            mutated: Mutated::default(),
        }
    }

    /// Several sites: slower links, a third of the bytes.
    pub fn wan() -> Self {
        Self {
            profile: Profile::Wan,
            probe_period: Duration::from_secs(2),
            probe_timeout: Duration::from_millis(700),
            neighbour_silence: Duration::from_millis(4_800),
            suspect_for: Duration::from_secs(4),
            gossip_every: Duration::from_millis(400),
            copy_gap: Duration::from_millis(10)..Duration::from_millis(30),
            announce_every: Duration::from_mins(1),
            announce_down_every: Duration::from_secs(15),
            announce_retry: Duration::from_secs(2),
            ..Self::lan()
        }
    }

    /// All nodes on one host, for trials: no copies, because nothing is lost.
    pub fn local() -> Self {
        Self {
            profile: Profile::Local,
            probe_period: Duration::from_millis(400),
            probe_timeout: Duration::from_millis(100),
            copies: 1,
            announce_down_every: Duration::from_secs(2),
            announce_retry: Duration::from_millis(500),
            ..Self::lan()
        }
    }

    /// Returns how often one change rides along among `nodes`: enough by SWIM §4.1, never fewer than six times.
    pub(super) fn transmissions_among(&self, nodes: usize) -> u8 {
        let rides = 4.0 * ((nodes + 1) as f64).log10();
        (rides as u8).clamp(6, 20)
    }
}
