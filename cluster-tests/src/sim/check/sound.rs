//! No node's messages are refused as malformed: all nodes of a run are sound, whatever befalls them.

use weft::core::netdb::Refusal;

use super::Violation;
use crate::sim::World;

/// What no sound node sends, whatever befalls it. A clock may be wrong, and who has lost its disk may hear of a life that it does
/// not remember.
const NEVER: [Refusal; 3] = [Refusal::Malformed, Refusal::Inconsistent, Refusal::Endless];

/// Checks that one machine, if it runs, has refused nothing as malformed since its start, nor as contradicting itself.
pub fn nothing_is_malformed(world: &World, at: usize) -> Result<(), Violation> {
    let Some(node) = &world.machines[at].node else {
        return Ok(());
    };
    let stats = node.stats();
    let is_refused = |refusal: &Refusal| stats.netdb.refused.contains_key(refusal);
    if stats.membership_errors == 0 && !NEVER.iter().any(is_refused) {
        return Ok(());
    }
    Err(Violation {
        property: "what a sound node sends is well formed",
        seen: format!(
            "machine {at} refused {:?}, the last of each of {:?}, and {} records of members",
            stats.netdb.refused, stats.netdb.refused_last, stats.membership_errors
        ),
    })
}
