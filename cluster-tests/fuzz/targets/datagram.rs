//! Bytes from anybody: what is not authentic changes nothing but counts, and is not answered.
#![no_main]

use fuzz::world::World;
use libfuzzer_sys::fuzz_target;
use weft::core::node::DatagramError;

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new();
    world.check();
    let before = world.node.stats();
    let taken = world.node.handle_datagram(world.now, bytes);
    let rejected = matches!(taken, Err(DatagramError::Rejected(_)));
    let after = world.node.stats();
    let counted = after.rejections.total() - before.rejections.total();
    assert_eq!(counted, u64::from(rejected));
    if rejected {
        assert_eq!(after.netdb, before.netdb);
        assert!(world.node.poll_transmit().is_none(), "it is answered");
    }
    // What is authentic was sealed by a node of the seeds: no input makes one up.
    world.brought += bytes.len();
    world.check();
});
