//! Links that are silent though both their ends live: what does not come by one way comes by another.

use std::time::Duration;

use weft::{
    core::model::NetworkId,
    sim::{Arrivals, World},
};

const NETWORK: NetworkId = NetworkId(1);
const NODES: usize = 25;
const LIMIT: Duration = Duration::from_millis(30);

/// Lets two nodes write, and returns how many of the two writes came to the other in time.
fn write(world: &mut World<Arrivals>, one: usize, other: usize) -> usize {
    world.observer.forget_delays();
    for (from, to) in [(one, other), (other, one)] {
        let (address, value) = world.draw_entry(NETWORK);
        let awaited = (address.clone(), Some(value.clone()));
        world.observer.expect(world.now(), awaited, [to]);
        world.put(from, address, value);
    }
    world.run_for(LIMIT);
    2 - world.observer.give_up()
}

#[test]
fn who_is_cut_from_both_its_ring_neighbours_hears_and_is_heard_in_time() {
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

            let arrived = write(&mut world, writer, cut);

            assert_eq!(arrived, 2, "{writer} writes, but for {first} and {second}");
            world.links.heal();
        }
    }
    assert_eq!(world.observer.take_downs(), [], "nobody was down");
}
