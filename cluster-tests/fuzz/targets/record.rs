//! Authentic datagrams with any records in them: to every decoder of records, of the network DB and of membership.
//!
//! Input: the sender, then a payload.
#![no_main]

use fuzz::world::{World, peer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fuzz::seeds::write_if_asked(), |input: (u8, &[u8])| {
    let (from, payload) = input;
    let mut world = World::new();
    world.brought += payload.len();
    if let Some(datagram) = world.seal(peer(from), payload) {
        drop(world.node.handle_datagram(world.now, &datagram));
    }
    world.check();
    world.wait(3_000);
    world.check();
});
