//! Have and floor: what a replica shows of a log is decided by which dots it has (I2–I4 of the network DB).
//!
//! For every key that the dots it has name, the replica holds the newest of them, unless that is a delete at or below the
//! floor; and it holds nothing else. Every dot it holds is had (I3) and is what its owner wrote; the floor is not above the
//! prefix (I4).

use std::collections::BTreeMap;

use weft::{
    core::{model::Dot, netdb::LogView},
    sim::Address,
};

use super::{Violation, written::Write};
use crate::sim::World;

const PROPERTY: &str = "what a replica holds of a log is decided by the dots it has (I2, I3, I4)";

/// Checks the property at one machine, if it runs.
pub fn logs_are_sound(world: &World, at: usize) -> Result<(), Violation> {
    let Some(node) = &world.machines[at].node else {
        return Ok(());
    };
    for view in node.view_logs() {
        let written = world.observer.written.log(&view.log);
        check(&view, written).map_err(|seen| Violation {
            property: PROPERTY,
            seen: format!("machine {at}, {:?}: {seen}", view.log),
        })?;
    }
    Ok(())
}

fn check(view: &LogView, written: Option<&BTreeMap<u64, Write>>) -> Result<(), String> {
    if view.floor > view.prefix() {
        return Err(format!("floor {} is above {:?}", view.floor, view.have));
    }
    if let Some(dot) = view.dots.iter().find(|dot| !view.has(dot.seq)) {
        return Err(format!("dot {} is held, had are {:?}", dot.seq, view.have));
    }
    // Of the cluster scope it is not known here what the nodes wrote.
    let Some(written) = written else {
        return Ok(());
    };
    let mut newest: BTreeMap<&Address, u64> = BTreeMap::new();
    for (seq, (address, _)) in written.iter().filter(|(seq, _)| view.has(**seq)) {
        newest.insert(address, *seq);
    }
    for dot in &view.dots {
        let address = (view.log.network, dot.table.clone(), dot.key.clone());
        let wrote = written.get(&dot.seq);
        if wrote != Some(&(address.clone(), dot.value.clone())) {
            return Err(format!("holds {dot:?}, its owner wrote {wrote:?}"));
        }
        if newest.get(&address) != Some(&dot.seq) {
            return Err(format!("holds {dot:?}, and has a later dot of its key"));
        }
    }
    let held = |seq: u64| view.dots.iter().any(|dot: &Dot| dot.seq == seq);
    for (address, seq) in newest {
        let is_delete = written[&seq].1.is_none();
        let is_forgotten = is_delete && seq <= view.floor;
        if !held(seq) && !is_forgotten {
            return Err(format!(
                "has dot {seq} of {address:?} and does not hold it, floor {}",
                view.floor
            ));
        }
    }
    Ok(())
}
