//! Requests and answers on streams: any bytes, asked and not.
#![no_main]

use fuzz::world::{World, peer};
use libfuzzer_sys::fuzz_target;
use weft::core::{netdb::CallId, node::members_in};

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new();
    drop(members_in(bytes));
    if let Ok(reply) = world.node.handle_stream(peer(0), bytes) {
        assert!(
            reply.len() < 64 * 1024,
            "{} bytes of nearly nothing",
            reply.len()
        );
    }
    world.wait(1_500);
    world.brought += 2 * bytes.len();
    drop(
        world
            .node
            .handle_stream_reply(world.now, CallId::foreign(peer(2)), bytes),
    );
    while let Some(call) = world.calls.pop_front() {
        drop(world.node.handle_stream_reply(world.now, call.id, bytes));
    }
    world.check();
});
