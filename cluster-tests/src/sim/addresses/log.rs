//! The agreed log, as a node sees it: what is proposed may be applied, later, twice, or never.

use std::net::IpAddr;

use weft::core::{
    allocator::{Action, Allocator, AllocatorError, Command, Outcome},
    model::{BlockRecord, NetworkId, NodeId, Prefix},
};

/// What a command came to.
pub(super) type Applied = Result<Outcome, AllocatorError>;

/// A command that was applied.
pub(super) type Committed = (NodeId, Command, Applied, Option<(NetworkId, Prefix)>);

/// The state that was agreed, and what a leader has that is not.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) state: Allocator,
    pub(super) leader: Option<NodeId>,
    /// Proposed, and not on a majority yet.
    open: Vec<(NodeId, Command)>,
}

impl Log {
    pub(super) fn new(state: Allocator) -> Self {
        Self {
            state,
            leader: None,
            open: Vec::new(),
        }
    }

    /// The leader writes a command down.
    pub(super) fn propose(&mut self, from: NodeId, command: Command) {
        self.open.push((from, command));
    }

    /// What was written down is on a majority: it is applied, in order. Returns who proposed it, what it came to, and the
    /// block that was leased although it rests, which is excused only if nothing else was free.
    pub(super) fn commit(&mut self) -> Vec<Committed> {
        let open = std::mem::take(&mut self.open).into_iter();
        let apply = |(from, command): (NodeId, Command)| {
            let before = Before::of(&self.state, &command);
            let applied = self.state.apply(&command);
            let is_new = !self.state.take_dots().is_empty();
            let cut_short = match &applied {
                Ok(Outcome::Leased(block, _)) if is_new => {
                    before.and_then(|before| before.cut_short(&self.state, block))
                }
                Ok(_) | Err(_) => None,
            };
            (from, command, applied, cut_short)
        };
        open.map(apply).collect()
    }

    /// Another node leads, from a snapshot. Of what was open it may have some; the rest is lost. Returns how much was.
    pub(super) fn elect(
        &mut self,
        leader: Option<NodeId>,
        mut survives: impl FnMut() -> bool,
    ) -> u64 {
        let before = self.open.len();
        self.open.retain(|_| survives());
        if leader.is_some() && leader != self.leader {
            let bytes = self.state.snapshot();
            let restored = Allocator::restore(&bytes).expect("it was just made");
            assert_eq!(restored, self.state, "a snapshot is the state");
            self.state = restored;
        }
        self.leader = leader;
        (before - self.open.len()) as u64
    }
}

/// What of a network was leased and what rested when somebody asked for a further block.
struct Before {
    leased: Vec<Prefix>,
    resting: Vec<Prefix>,
}

impl Before {
    fn of(state: &Allocator, command: &Command) -> Option<Self> {
        let Action::GrowBlocks { network, .. } = command.action else {
            return None;
        };
        let blocks = state.blocks().filter(|block| block.network == network);
        Some(Self {
            leased: blocks.map(|block| block.prefix).collect(),
            resting: state.resting(network, command.at.wall()),
        })
    }

    /// Returns the block that was leased, if it rested and every other address was leased or rested.
    fn cut_short(&self, state: &Allocator, block: &BlockRecord) -> Option<(NetworkId, Prefix)> {
        let has = |prefixes: &[Prefix], address| {
            let mut prefixes = prefixes.iter();
            prefixes.any(|prefix| prefix.0.contains(&address))
        };
        let is_cut = |address: IpAddr| has(&self.resting, address);
        if !block.prefix.0.hosts().any(is_cut) {
            return None;
        }
        let subnets = &state.networks().get(&block.network)?.subnets;
        let mut addresses = subnets.iter().flat_map(|subnet| {
            let usable = subnet.prefix.0.hosts();
            usable.filter(|address| *address != subnet.gateway)
        });
        let is_all_gone = addresses.all(|address| is_cut(address) || has(&self.leased, address));
        is_all_gone.then_some((block.network, block.prefix))
    }
}
