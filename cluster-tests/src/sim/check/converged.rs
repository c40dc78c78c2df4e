//! After the calm every attached node shows exactly the living owners' entries: nothing is lost, nothing came back.

use std::collections::{BTreeMap, BTreeSet};

use weft::core::{
    model::{Key, NetworkId, NodeId, TableName, Value},
    watch::Filter,
};

use super::Violation;
use crate::sim::World;

const PROPERTY: &str = "every node shows what the owners wrote";

/// What is to be seen of one network: per key the values that owners hold; one of them must show.
type Expected = BTreeMap<(TableName, Key), BTreeSet<(NodeId, Value)>>;

/// Checks the property at every running machine.
pub fn converged(world: &World) -> Result<(), Violation> {
    let networks: BTreeSet<NetworkId> = world
        .machines
        .iter()
        .flat_map(|machine| &machine.disk.attached)
        .copied()
        .collect();
    for network in networks {
        let expected = expected(world, network);
        let mut winners = BTreeMap::new();
        for at in world.running() {
            if world.machines[at].disk.attached.contains(&network) {
                check_machine(world, (at, network), &expected, &mut winners)?;
            }
        }
    }
    Ok(())
}

fn expected(world: &World, network: NetworkId) -> Expected {
    let mut expected = Expected::new();
    for at in world.running() {
        let disk = &world.machines[at].disk;
        if !disk.attached.contains(&network) {
            continue;
        }
        for ((of, table, key), value) in &disk.entries {
            if *of == network {
                let holders = expected.entry((table.clone(), key.clone())).or_default();
                holders.insert((world.machines[at].id, value.clone()));
            }
        }
    }
    expected
}

fn check_machine(
    world: &World,
    place: (usize, NetworkId),
    expected: &Expected,
    winners: &mut BTreeMap<(TableName, Key), (NodeId, Value)>,
) -> Result<(), Violation> {
    let (at, network) = place;
    let violation = |seen: String| Violation {
        property: PROPERTY,
        seen: format!(
            "at {:?}, machine {at}, network {network}: {seen}",
            world.now()
        ),
    };
    let node = world.machines[at].node.as_ref().expect("it runs");
    let filter = Filter {
        network: Some(network),
        ..Filter::default()
    };
    let (entries, _) = node.list(&filter);
    let seen: BTreeSet<_> = entries
        .iter()
        .map(|entry| (entry.table.clone(), entry.key.clone()))
        .collect();
    if let Some(missing) = expected.keys().find(|key| !seen.contains(key)) {
        return Err(violation(format!("{missing:?} is missing")));
    }
    for entry in entries {
        let key = (entry.table, entry.key);
        let shown = (entry.owner, entry.value);
        let holders = expected.get(&key).ok_or_else(|| {
            violation(format!(
                "{key:?} of node {} shows and nobody holds it",
                shown.0
            ))
        })?;
        if !holders.contains(&shown) {
            return Err(violation(format!(
                "{key:?} shows {shown:?}, held are {holders:?}"
            )));
        }
        let winner = winners.entry(key.clone()).or_insert_with(|| shown.clone());
        if *winner != shown {
            return Err(violation(format!(
                "{key:?} shows {shown:?}, elsewhere {winner:?}"
            )));
        }
    }
    Ok(())
}
