//! The systems that are compared, each as a cluster of nodes in this process, on real sockets of the loopback device.

mod chitchat;
mod memberlist;
mod weft;

use std::{fmt, sync::Arc, time::Duration};

use crate::arrivals::Arrivals;

pub use self::{chitchat::ChitchatCluster, memberlist::MemberlistCluster, weft::WeftCluster};

/// A running cluster of one system.
///
/// Every node tells [`Arrivals`] of what it hears by the way its system offers for that: a watch, a subscription, a
/// delegate. Nobody polls.
#[expect(async_fn_in_trait, reason = "used here only, and by the main task")]
pub trait Cluster: Sized {
    /// Starts `nodes` nodes that know one of them.
    async fn start(
        settings: Settings,
        nodes: usize,
        arrivals: &Arc<Arrivals>,
    ) -> anyhow::Result<Self>;

    /// Returns whether every node knows every other one, and is ready for writes.
    async fn is_whole(&self) -> anyhow::Result<bool>;

    /// Writes at one node.
    async fn write(&self, node: usize, payload: String) -> anyhow::Result<()>;

    /// Returns how many bytes all nodes have handed to their sockets.
    async fn sent(&self) -> anyhow::Result<u64>;

    /// Ends all nodes.
    async fn stop(self) -> anyhow::Result<()>;
}

/// Which system.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum System {
    /// This project.
    Weft,
    /// Quickwit's: scuttlebutt anti-entropy.
    Chitchat,
    /// HashiCorp's protocol in Rust: SWIM with messages that ride along.
    Memberlist,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weft => "weft",
            Self::Chitchat => "chitchat",
            Self::Memberlist => "memberlist",
        })
    }
}

/// How a system is set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Settings {
    /// What it comes with for one site.
    Default,
    /// The same, but with another interval of gossip, and for memberlist with this many nodes at once.
    Fast {
        /// The interval.
        every: Duration,
        /// To how many; chitchat's number cannot be set.
        to: usize,
    },
}

/// What is measured, for one number of nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Contender {
    /// The system.
    pub system: System,
    /// How it is set.
    pub settings: Settings,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = self.system;
        match (system, self.settings) {
            (System::Weft, _) => write!(f, "{system}"),
            (System::Chitchat, Settings::Default) => write!(f, "{system} 1 s (default)"),
            (System::Memberlist, Settings::Default) => write!(f, "{system} lan (default)"),
            (System::Chitchat, Settings::Fast { every, .. }) => {
                write!(f, "{system} {} ms", every.as_millis())
            }
            (System::Memberlist, Settings::Fast { every, to }) => {
                write!(f, "{system} {} ms × {to}", every.as_millis())
            }
        }
    }
}

/// From how many nodes on chitchat gossips every 50 ms at the fastest: 64 nodes need more than a whole core for that already.
const CHITCHAT_LARGE: usize = 32;

/// Returns what is compared at this number of nodes: each system as it comes, and the peers as fast as makes sense.
pub fn contenders(nodes: usize) -> Vec<Contender> {
    let chitchat_every = if nodes < CHITCHAT_LARGE { 20 } else { 50 };
    let fast = |every, to| Settings::Fast {
        every: Duration::from_millis(every),
        to,
    };
    [
        (System::Weft, Settings::Default),
        (System::Chitchat, Settings::Default),
        (System::Chitchat, fast(chitchat_every, 3)),
        (System::Memberlist, Settings::Default),
        (System::Memberlist, fast(20, 4)),
    ]
    .into_iter()
    .map(|(system, settings)| Contender { system, settings })
    .collect()
}
