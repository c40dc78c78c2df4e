//! Going on from one voter's state after the others are lost for ever.

use super::{Action, Allocator, Command, VNI_FIRST};
use crate::core::model::{Hlc, NodeId, Vni};

/// How far the numbers of networks and VNIs jump: the lost voters may have given out some that this state does not know of, and
/// nodes may still use them.
const NUMBERS_SKIPPED: u32 = 1_000;

/// How far the numbers of dots jump, for the same reason.
const DOTS_SKIPPED: u64 = 1 << 32;

/// How far the versions of the ring and of the authorities jump: nodes may have newer ones from the lost voters, and of two with
/// one version nobody could tell which is agreed.
const VERSIONS_SKIPPED: u64 = 1_000_000;

impl Allocator {
    /// Goes on without the voters that may have known more than this state does. `lost` are members no more.
    ///
    /// Every number that is given out from now on is one that they cannot have given out, and every entry of the cluster log gets
    /// a new one, so that a node which heard of more from them drops it. So it is with the ring and the authorities: whatever the
    /// lost voters made of them, every node fetches those of this state. It is no command: it is done once, on the one disk that
    /// is left. `request` names the removals, each by the numbers from there on.
    pub fn recover(&mut self, at: Hlc, request: u128, lost: &[NodeId]) {
        self.last_network = self.last_network.saturating_add(NUMBERS_SKIPPED);
        self.vnis.last = self
            .vnis
            .last
            .max(VNI_FIRST - 1)
            .saturating_add(NUMBERS_SKIPPED)
            .min(Vni::MAX.get());
        self.log.renumber(DOTS_SKIPPED);
        self.renumber_ring(at, VERSIONS_SKIPPED);
        // A snapshot has the version of a ring that was changed, and when.
        self.rotated.get_or_insert(at);
        self.renumber_authorities(at, VERSIONS_SKIPPED);
        for (request, node) in (request..).zip(lost) {
            let node = *node;
            let action = Action::RemoveMember { node };
            // One that was removed before is removed.
            let _ = self.apply(&Command {
                at,
                request,
                action,
            });
        }
    }
}
