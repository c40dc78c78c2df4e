//! Packets of SWIM and news of members as a sound peer makes them, changed on their way by somebody who holds the keys.
#![no_main]

use arbitrary::Arbitrary;
use fuzz::world::{self, ME, World, peer};
use libfuzzer_sys::fuzz_target;
use weft::core::wire::{
    envelope::Opener,
    record::{Batch, RecordKind, records},
};

/// How many steps are played of an input.
const STEPS_MAX: usize = 64;

/// What happens between two looks at the clock.
#[derive(Arbitrary, Debug)]
struct Step {
    /// For how long both nodes do what they do, in milliseconds.
    wait: u8,
    /// Who says it.
    from: u8,
    /// Which bytes of a packet are other ones, and where it is cut.
    changed: Vec<(u8, u8)>,
    cut: Option<u8>,
    /// Whether it is said again.
    twice: bool,
}

fuzz_target!(|steps: Vec<Step>| {
    let (mut node, mut other) = (World::new(), World::of(peer(0)));
    let mut opener = Opener::new(world::CLUSTER, ME, world::keyring());
    for step in steps.iter().take(STEPS_MAX) {
        for world in [&mut node, &mut other] {
            world.pass(u16::from(step.wait) * 8);
            let now = world.now;
            world.node.handle_timeout(now);
        }
        while let Some(transmit) = other.node.poll_transmit() {
            let Ok(opened) = opener.open(&transmit.datagram) else {
                continue;
            };
            let payload = change(step, &opened.payload);
            for _ in 0..=u8::from(step.twice) {
                node.brought += payload.len();
                if let Some(datagram) = node.seal(peer(step.from), &payload) {
                    drop(node.node.handle_datagram(node.now, &datagram));
                }
            }
        }
        while let Some(transmit) = node.node.poll_transmit() {
            drop(other.node.handle_datagram(other.now, &transmit.datagram));
        }
    }
    node.check();
});

/// Returns a payload whose records of membership are changed, and the others as they are.
fn change(step: &Step, payload: &[u8]) -> Vec<u8> {
    let mut batch = Batch::new();
    for (kind, body) in records(payload).flatten() {
        let mut body = body.to_vec();
        if kind == RecordKind::FOCA || kind == RecordKind::MEMBERS {
            for (at, byte) in &step.changed {
                let at = usize::from(*at) % body.len().max(1);
                if let Some(changed) = body.get_mut(at) {
                    *changed = *byte;
                }
            }
            let cut = step.cut.map_or(body.len(), usize::from);
            body.truncate(cut);
        }
        let _full = batch.push(kind, &body);
    }
    batch.as_bytes().to_vec()
}
