//! What a node has counted, under one list of names: `weft status` and the metrics show the same.

use std::borrow::Cow;

use crate::runtime::{NodeStatus, streams::StreamStats};

/// Counts messages by their sender, not by a reason.
const FAULTY_MESSAGES: &str = "netdb_faulty_messages_total";

/// Counts nodes by the version of the wire that is spoken with them.
const SPOKEN: &str = "wire_peers";

/// One figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    /// Its name; ends in `_total` if it only grows.
    pub(super) name: &'static str,
    /// What kind of it this is, or whose.
    pub(super) reason: Option<Cow<'static, str>>,
    /// The figure.
    pub(super) value: u64,
}

impl Count {
    fn new(name: &'static str, value: u64) -> Self {
        Self {
            name,
            reason: None,
            value,
        }
    }

    fn of(name: &'static str, reason: impl Into<Cow<'static, str>>, value: u64) -> Self {
        Self {
            name,
            reason: Some(reason.into()),
            value,
        }
    }

    /// Returns the name and the reason as one word.
    pub(super) fn key(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}.{reason}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// Returns what the reason of figures of this name is.
    pub(super) fn label(name: &str) -> &'static str {
        match name {
            FAULTY_MESSAGES => "node",
            SPOKEN => "version",
            _ => "reason",
        }
    }

    /// Reads what [`Self::key`] wrote.
    pub(super) fn split(key: &str) -> (&str, Option<&str>) {
        match key.split_once('.') {
            Some((name, reason)) => (name, Some(reason)),
            None => (key, None),
        }
    }
}

/// Returns all figures.
pub(super) fn of(node: &NodeStatus, streams: &StreamStats) -> Vec<Count> {
    let stats = &node.stats;
    let (netdb, membership) = (&stats.netdb, &stats.membership);
    let mut counts = vec![
        Count::new("datagrams_sent_total", stats.datagrams_sent),
        Count::new("datagram_bytes_sent_total", stats.datagram_bytes_sent),
        Count::new("datagrams_opened_total", stats.datagrams_opened),
        Count::new("datagrams_of_removed_total", stats.from_removed),
        Count::new("unknown_records_total", stats.unknown_records),
        Count::new("stream_bytes_sent_total", streams.bytes_sent),
        Count::new("stream_bytes_received_total", streams.bytes_received),
        Count::new("stream_connections_accepted_total", streams.accepted),
        Count::new("stream_connections_dialed_total", streams.dialed),
        Count::new("stream_connections", streams.open),
        Count::new("stream_calls_answered_total", streams.answered),
        Count::new("entries", node.held as u64),
        Count::new("dots_applied_total", netdb.applied),
        Count::new("dots_duplicate_total", netdb.duplicates),
        Count::new("syncs_total", netdb.syncs),
        Count::new("netdb_overflows_total", netdb.overflows),
        Count::new("swim_packets_total", membership.packets),
        Count::new("swim_stream_pings_total", membership.stream_pings),
        Count::new("swim_stream_pongs_total", membership.stream_pongs),
        Count::new("swim_suspected_total", membership.suspected),
        Count::new("swim_refuted_total", membership.refuted),
        Count::new("swim_hearings_total", membership.hearings),
        Count::new("swim_stalls_total", membership.stalls),
        Count::new("swim_overflows_total", membership.overflows),
    ];
    let spoken = stats.spoken.iter();
    counts.extend(
        spoken.map(|(version, nodes)| Count::of(SPOKEN, version.to_string(), *nodes as u64)),
    );
    counts.extend(rejected(stats));
    let refused = netdb.refused.iter();
    counts.extend(
        refused.map(|(why, count)| Count::of("netdb_messages_refused_total", why.as_str(), *count)),
    );
    let faulty = netdb.faulty.iter();
    counts.extend(faulty.map(|(node, count)| Count::of(FAULTY_MESSAGES, node.to_string(), *count)));
    let refused = streams.refused.iter();
    counts.extend(
        refused.map(|(why, count)| Count::of("streams_refused_total", why.as_str(), *count)),
    );
    counts
}

fn rejected(stats: &crate::core::node::Stats) -> [Count; 8] {
    let rejected = &stats.rejections;
    [
        ("too_short", rejected.too_short),
        ("too_long", rejected.too_long),
        ("version", rejected.version),
        ("unknown_key", rejected.unknown_key),
        ("forged", rejected.forged),
        ("replayed", rejected.replayed),
        ("old_boot", rejected.old_boot),
        ("from_ourselves", rejected.from_ourselves),
    ]
    .map(|(why, count)| Count::of("datagrams_rejected_total", why, count))
}
