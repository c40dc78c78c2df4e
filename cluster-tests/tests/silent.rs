//! Links that are silent though both their ends live: what does not come by one way comes by another.

use std::time::Duration;

use weft::{
    core::model::NetworkId,
    sim::{Arrivals, World},
};

const NETWORK: NetworkId = NetworkId(1);
const NODES: usize = 25;
const LIMIT: Duration = Duration::from_millis(30);

/// Lets a node write, and returns how long it takes to another.
fn write(world: &mut World<Arrivals>, from: usize, to: usize) -> Option<Duration> {
    let (address, value) = world.draw_entry(NETWORK);
    world.observer.give_up();
    world.observer.forget_delays();
    let awaited = (address.clone(), Some(value.clone()));
    world.observer.expect(world.now(), awaited, [to]);
    world.put(from, address, value);
    world.run_for(LIMIT);
    world.observer.all().longest()
}

#[test]
fn who_is_cut_from_both_its_ring_neighbours_hears_of_a_change_in_time() {
    let mut world = World::settled(7, NODES, NETWORK, Arrivals::default());
    world.run_for(Duration::from_secs(1));
    let cut = 0;

    // Whichever two its neighbours are, they are among these pairs.
    for first in 1..NODES {
        for second in first + 1..NODES {
            for silent in [first, second] {
                world.links.cut(cut, silent);
                world.links.cut(silent, cut);
            }
            let writer = 1 + (first * NODES + second) % (NODES - 1);

            let took = write(&mut world, writer, cut);
            let back = write(&mut world, cut, writer);

            let pair = (first, second);
            assert!(
                took.is_some(),
                "from {writer} but for {pair:?}: not in time"
            );
            assert!(back.is_some(), "to {writer} but for {pair:?}: not in time");
            world.links.heal();
        }
    }
    assert_eq!(world.observer.take_downs(), [], "nobody was down");
}
