//! What owners wrote, dot by dot: the truth that replicas are held against. No dot names two writes (I1).

use std::collections::BTreeMap;

use weft::{
    core::{
        model::Value,
        netdb::{LogId, Version},
    },
    sim::Address,
};

use super::Violation;

const PROPERTY: &str = "a dot names one write (I1)";

/// One write: where, and the value; nothing for a delete.
pub(super) type Write = (Address, Option<Value>);

/// All that owners have written.
#[derive(Default, Debug)]
pub struct Written {
    logs: BTreeMap<LogId, BTreeMap<u64, Write>>,
    twice: Option<String>,
}

impl Written {
    /// Notes a write as its owner makes it.
    pub fn note(&mut self, version: Version, address: &Address, value: Option<&Value>) {
        let log = self.logs.entry(version.log).or_default();
        let write = (address.clone(), value.cloned());
        if let Some(former) = log.insert(version.seq, write) {
            self.twice = Some(format!("{version:?} was {former:?}"));
        }
    }

    /// Returns the writes of a log that was written to.
    pub fn log(&self, log: &LogId) -> Option<&BTreeMap<u64, Write>> {
        self.logs.get(log)
    }

    /// Checks the property.
    pub fn check(&self) -> Result<(), Violation> {
        Violation::unless_none(PROPERTY, self.twice.as_ref())
    }
}
