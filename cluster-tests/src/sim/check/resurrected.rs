//! No resurrection: who has the dot that deleted or replaced a value never shows that value again, however old the copies are
//! that still go around, until the owner writes it anew.

use std::collections::BTreeMap;

use weft::{
    core::{
        model::{NodeId, Value},
        watch::Filter,
    },
    sim::Address,
};

use super::Violation;
use crate::sim::World;

const PROPERTY: &str = "what was deleted does not come back";

/// Checks the property at one machine, if it runs.
pub fn nothing_comes_back(world: &World, at: usize) -> Result<(), Violation> {
    let Some(node) = &world.machines[at].node else {
        return Ok(());
    };
    let mut newest: BTreeMap<(NodeId, &Address), (u64, &Option<Value>)> = BTreeMap::new();
    // In the order of names, so that a later generation's word on a key counts.
    let views = node.view_logs();
    for view in views.iter().filter(|view| view.shown) {
        let writes = world.observer.written.log(&view.log).into_iter().flatten();
        for (seq, (address, value)) in writes.filter(|(seq, _)| view.has(**seq)) {
            newest.insert((view.log.owner, address), (*seq, value));
        }
    }
    for entry in node.list(&Filter::default()).0 {
        let address = (entry.network, entry.table, entry.key);
        let Some((seq, value)) = newest.get(&(entry.owner, &address)) else {
            continue;
        };
        if value.as_ref() != Some(&entry.value) {
            let seen = format!(
                "machine {at} shows {:?} of {address:?} by node {}, and has dot {seq} that made it {value:?}",
                entry.value, entry.owner
            );
            return Err(Violation {
                property: PROPERTY,
                seen,
            });
        }
    }
    Ok(())
}
