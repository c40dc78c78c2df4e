//! What happens to a node: messages of members that lie, answers, failures, time, its own writes.

use std::time::Duration;

use arbitrary::Arbitrary;
use weft::core::{model::NetworkId, netdb::CallId};

use crate::{
    message::{Record, Reply, Request},
    world::{NETWORKS, World, member, peer},
};

/// How many steps one input has at most.
const STEPS_MAX: usize = 64;
/// How many members one list names at most.
const MEMBERS_MAX: usize = 16;

/// One step.
#[derive(Arbitrary, Clone, Debug)]
#[expect(missing_docs, reason = "each is said in its line")]
pub enum Step {
    /// A datagram comes.
    Hear { from: u8, records: Vec<Record> },
    /// A node asks on a stream.
    Ask { from: u8, request: Request },
    /// The oldest call is answered.
    Answer { reply: Reply },
    /// An answer comes that nobody asked for, or that is for another call.
    Unasked { from: u8, reply: Reply },
    /// The oldest call fails.
    Fail,
    /// Somebody says who is a member: node, boot, state.
    Members { members: Vec<(u8, u8, u8)> },
    /// Time passes.
    Wait { millis: u16 },
    /// The node writes.
    Write {
        network: u8,
        key: u8,
        value: Option<u16>,
    },
    /// The node attaches.
    Attach { network: u8 },
    /// The node detaches.
    Detach { network: u8 },
    /// The node has written all again.
    Ready,
    /// The node waits until others have what it wrote.
    Barrier { network: u8, millis: u16 },
}

/// Plays the steps, and checks after each what must hold.
pub fn play(steps: &[Step]) {
    let mut world = World::new();
    world.check();
    for step in steps.iter().take(STEPS_MAX) {
        take(&mut world, step);
        world.check();
    }
}

fn network_of(at: u8) -> NetworkId {
    NETWORKS[usize::from(at) % NETWORKS.len()]
}

fn take(world: &mut World, step: &Step) {
    let now = world.now;
    match step {
        Step::Hear { from, records } => {
            world.brought += records.iter().map(Record::weight).sum::<usize>();
            let records: Vec<_> = records.iter().map(Record::encode).collect();
            world.hear(peer(*from), &records);
        }
        Step::Ask { from, request } => {
            drop(world.node.handle_stream(peer(*from), &request.encode()));
        }
        Step::Answer { reply } => {
            if let Some(call) = world.calls.pop_front() {
                world.brought += reply.weight();
                let reply = reply.encode();
                drop(world.node.handle_stream_reply(now, call.id, &reply));
            }
        }
        Step::Unasked { from, reply } => {
            world.brought += reply.weight();
            let reply = reply.encode();
            drop(
                world
                    .node
                    .handle_stream_reply(now, CallId::foreign(peer(*from)), &reply),
            );
        }
        Step::Fail => {
            if let Some(call) = world.calls.pop_front() {
                world.node.handle_stream_failed(now, call.id);
            }
        }
        Step::Members { members } => {
            let members = members.iter().take(MEMBERS_MAX);
            let states = members.map(|(node, boot, state)| member(peer(*node), *boot, *state));
            world.node.apply_members(now, states.collect());
        }
        Step::Wait { millis } => world.wait(*millis),
        Step::Write {
            network,
            key,
            value,
        } => match network_of(*network) {
            NetworkId::CLUSTER => {}
            network => world.write(network, *key, *value),
        },
        Step::Attach { network } => world.attach(network_of(*network)),
        Step::Detach { network } => world.detach(network_of(*network)),
        Step::Ready => {
            if world.node.ready(now).is_ok() {
                world.brought += 1;
            }
        }
        Step::Barrier { network, millis } => {
            if let Ok(version) = world.node.written(network_of(*network)) {
                let deadline = now.instant + Duration::from_millis(u64::from(*millis));
                world.node.applied(now, version, deadline);
            }
        }
    }
}
