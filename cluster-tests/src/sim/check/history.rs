//! A member's state never changes without a transition, and the last one recorded is the state that shows.

use std::collections::BTreeMap;

use weft::core::{
    membership::{Identity, State, Transition, What, Why},
    model::{Instant, NodeId},
    node::Node,
};

use super::Violation;

const PROPERTY: &str = "no member's state changes without a transition that says why";

/// Who is in which state.
type Shown = BTreeMap<NodeId, (Identity, State)>;

/// What each machine has recorded of the members since its program started, replayed.
#[derive(Default, Debug)]
pub struct Histories {
    replays: BTreeMap<usize, (u64, Shown)>,
    /// How many transitions were replayed.
    pub transitions: u64,
    violation: Option<String>,
}

impl Histories {
    /// A machine's program has started: what it shows is where the replay begins, as for a watcher that has listed.
    pub fn begin(&mut self, at: usize, node: &Node) {
        let listed = (node.membership().revision(), shown(node));
        self.replays.insert(at, listed);
    }

    /// Replays what a machine has recorded since the last time, and compares with what it shows.
    pub fn follow(&mut self, at: usize, now: Instant, node: &Node) {
        let Some((revision, mut replay)) = self.replays.remove(&at) else {
            return;
        };
        let membership = node.membership();
        match membership.transitions(revision, usize::MAX) {
            Ok(revised) => {
                self.transitions += revised.len() as u64;
                for revised in revised {
                    self.replay(at, &mut replay, &revised.transition);
                }
            }
            Err(missed) => self.violate(format!("machine {at}: {missed}")),
        }
        let shown = shown(node);
        if replay != shown {
            let differs = shown
                .iter()
                .find(|(member, is)| replay.get(*member) != Some(*is));
            self.violate(format!(
                "machine {at} at {now:?}: the members and the replay differ, for one in {differs:?}"
            ));
        }
        let ends = |(member, is): (&NodeId, &(Identity, State))| {
            let last = membership.last_transition(*member);
            last.is_some_and(|last| (last.identity, last.state) == (is.0, Some(is.1)))
        };
        if !shown.iter().all(ends) {
            self.violate(format!(
                "machine {at} at {now:?}: a trail ends in another state than its member's"
            ));
        }
        self.replays.insert(at, (membership.revision(), replay));
    }

    fn replay(&mut self, at: usize, replay: &mut Shown, transition: &Transition) {
        let identity = transition.identity;
        let before = match transition.state {
            Some(state) => replay.insert(identity.node, (identity, state)),
            None => replay.remove(&identity.node),
        };
        // One that returns says itself that its former life is over.
        let was_alive = before == Some((identity, State::Alive));
        if transition.what == What::Down && was_alive && transition.why != Why::Itself {
            self.violate(format!(
                "machine {at}: down without having been suspected: {transition:?}"
            ));
        }
    }

    fn violate(&mut self, seen: String) {
        self.violation.get_or_insert(seen);
    }

    /// Checks the property.
    pub fn check(&self) -> Result<(), Violation> {
        Violation::unless_none(PROPERTY, self.violation.as_ref())
    }
}

fn shown(node: &Node) -> Shown {
    let membership = node.membership();
    let us = membership.as_member();
    membership
        .members()
        .map(|member| (member.identity.node, (member.identity, member.state)))
        .chain([(us.identity.node, (us.identity, us.state))])
        .collect()
}
