//! One change in a quiet cluster, until all that are attached show it: the seven perturbations of networkdb's own harness.

use std::{ops::Range, time::Duration};

use weft::{
    core::{
        model::{NetworkId, Value},
        watch::Filter,
    },
    sim::{
        Address,
        arrivals::attachment,
        world::{draw, id_of},
    },
};

use super::{
    Cell, NETWORK, Sample, Watched,
    observe::{observe, rest, settle},
};

/// The network that one joins first.
const EMPTY: NetworkId = NetworkId(2);
/// How long it is waited for a change to arrive.
const LIMIT: Duration = Duration::from_secs(30);

/// What may happen, in the order in which it does.
#[derive(Clone, Copy)]
enum Case {
    Create,
    Update,
    Delete,
    LeaveNetwork,
    JoinPopulatedNetwork,
    WriteAfterJoin,
    JoinNetwork,
}

const CASES: [Case; 7] = [
    Case::Create,
    Case::Update,
    Case::Delete,
    Case::LeaveNetwork,
    Case::JoinPopulatedNetwork,
    Case::WriteAfterJoin,
    Case::JoinNetwork,
];

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::LeaveNetwork => "leave-network",
            Self::JoinPopulatedNetwork => "join-populated-network",
            Self::WriteAfterJoin => "write-after-join",
            Self::JoinNetwork => "join-network",
        }
    }
}

/// Takes a sample of each case a seed. The cell's entries are what a joiner finds.
pub(super) fn samples(cell: &Cell, seeds: Range<u64>) -> Vec<Sample> {
    let mut world = cell.world(seeds.start, cell.entries);
    settle(&mut world);
    let mut samples = Vec::new();
    for _ in seeds {
        let mut scene = Scene::draw(&mut world);
        for case in CASES {
            scene.prepare(&mut world, case);
            let seen = observe(&mut world, LIMIT, |world| scene.act(world, case));
            samples.push(Sample {
                copies_per_node: seen.tally.copies(scene.own_dots(case)),
                ..seen.sample(case.name(), cell.nodes)
            });
        }
        world.detach(scene.mover, EMPTY);
    }
    samples
}

/// Who acts, and on what.
struct Scene {
    /// Writes.
    writer: usize,
    /// Leaves and joins.
    mover: usize,
    /// What the writer writes.
    entry: (Address, Value),
    /// What the mover leaves behind.
    left: Address,
}

impl Scene {
    fn draw(world: &mut Watched) -> Self {
        let nodes = world.machines.len();
        let writer = draw(&mut world.rng, nodes);
        let mover = (writer + 1 + draw(&mut world.rng, nodes - 1)) % nodes;
        let entry = world.draw_entry(NETWORK);
        let (left, _) = world.draw_entry(NETWORK);
        Self {
            writer,
            mover,
            entry,
            left,
        }
    }

    /// Does what must have happened before the case, and lets it settle.
    fn prepare(&self, world: &mut Watched, case: Case) {
        match case {
            Case::LeaveNetwork => {
                let (_, value) = self.entry.clone();
                world.put(self.mover, self.left.clone(), value);
            }
            Case::WriteAfterJoin => world.detach(self.mover, NETWORK),
            Case::Create
            | Case::Update
            | Case::Delete
            | Case::JoinPopulatedNetwork
            | Case::JoinNetwork => return,
        }
        rest(world);
    }

    fn act(&mut self, world: &mut Watched, case: Case) {
        match case {
            Case::Create => self.write(world, self.writer),
            Case::Update => {
                let (_, value) = world.draw_entry(NETWORK);
                self.entry.1 = value;
                self.write(world, self.writer);
            }
            Case::Delete => {
                let address = self.entry.0.clone();
                expect(world, self.writer, (address.clone(), None));
                world.delete(self.writer, &address);
            }
            Case::LeaveNetwork => {
                expect(world, self.mover, (self.left.clone(), None));
                expect(
                    world,
                    self.mover,
                    (attachment(NETWORK, id_of(self.mover)), None),
                );
                world.detach(self.mover, NETWORK);
            }
            Case::JoinPopulatedNetwork => {
                for (address, value) in shown(world, self.writer) {
                    let awaited = (address, Some(value));
                    world.observer.expect(world.now(), awaited, [self.mover]);
                }
                self.join(world, NETWORK);
            }
            Case::WriteAfterJoin => {
                self.entry = world.draw_entry(NETWORK);
                world.attach(self.mover, NETWORK);
                self.write(world, self.mover);
            }
            Case::JoinNetwork => self.join(world, EMPTY),
        }
    }

    fn write(&self, world: &mut Watched, writer: usize) {
        let (address, value) = self.entry.clone();
        expect(world, writer, (address.clone(), Some(value.clone())));
        world.put(writer, address, value);
    }

    fn join(&self, world: &mut Watched, network: NetworkId) {
        let attached = Value::new(Vec::new()).expect("an empty value is a value");
        let address = attachment(network, id_of(self.mover));
        expect(world, self.mover, (address, Some(attached)));
        world.attach(self.mover, network);
    }

    /// Returns how many dots the acting node writes, and so need not receive.
    fn own_dots(&self, case: Case) -> u64 {
        match case {
            Case::WriteAfterJoin => 2,
            Case::Create
            | Case::Update
            | Case::Delete
            | Case::LeaveNetwork
            | Case::JoinPopulatedNetwork
            | Case::JoinNetwork => 1,
        }
    }
}

/// Expects that all but one machine show something.
fn expect(world: &mut Watched, but: usize, awaited: (Address, Option<Value>)) {
    let others = (0..world.machines.len()).filter(|at| *at != but);
    world.observer.expect(world.now(), awaited, others);
}

/// Returns what a machine shows of the network.
fn shown(world: &Watched, at: usize) -> Vec<(Address, Value)> {
    let filter = Filter {
        network: Some(NETWORK),
        ..Filter::default()
    };
    let listed = world.machines[at]
        .node
        .as_ref()
        .map(|node| node.list(&filter).0);
    let entries = listed.into_iter().flatten();
    entries
        .map(|entry| ((entry.network, entry.table, entry.key), entry.value))
        .collect()
}
