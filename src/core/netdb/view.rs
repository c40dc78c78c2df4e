//! The logs as they are held, to be read by checkers and by whoever verifies a node.

use super::{LogId, NetDb};
use crate::core::model::{Dot, Key, TableName, Value};

/// One log as this node has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogView {
    /// Its name.
    pub log: LogId,
    /// Whether its entries count for what is visible.
    pub shown: bool,
    /// Which dots are had, as inclusive ranges, lowest first.
    pub have: Vec<(u64, u64)>,
    /// Below it, and at it, tombstones are forgotten.
    pub floor: u64,
    /// The newest dot of each key, lowest first.
    pub dots: Vec<Dot>,
}

impl LogView {
    /// Returns whether a dot is had.
    pub fn has(&self, seq: u64) -> bool {
        let within = |range: &(u64, u64)| (range.0..=range.1).contains(&seq);
        self.have.iter().any(within)
    }

    /// Returns up to where nothing is missing.
    pub fn prefix(&self) -> u64 {
        self.have
            .first()
            .filter(|range| range.0 == 1)
            .map_or(0, |range| range.1)
    }
}

impl NetDb {
    /// Returns every log held, with all its dots. It copies them all.
    pub fn view_logs(&self) -> Vec<LogView> {
        let mut views = Vec::new();
        for replica in self.replicas.values() {
            for log in replica.logs() {
                let mut dots = Vec::new();
                replica.each_dot(log, (1, u64::MAX), |dot| {
                    let value = |bytes: &[u8]| Value::new(bytes.to_vec()).ok();
                    let table = TableName::new(dot.table).ok();
                    let key = Key::new(dot.key.to_vec()).ok();
                    dots.extend(table.zip(key).map(|(table, key)| Dot {
                        seq: dot.seq,
                        written: dot.written,
                        table,
                        key,
                        value: dot.value.and_then(value),
                    }));
                    true
                });
                let prefix = Some((1, log.have.prefix())).filter(|range| range.1 > 0);
                let ranges = log.have.ranges().iter().copied();
                views.push(LogView {
                    log: log.id,
                    shown: log.shown,
                    have: prefix.into_iter().chain(ranges).collect(),
                    floor: log.floor,
                    dots,
                });
            }
        }
        views
    }
}
