//! Worlds that have settled, for measuring: made without what starting and joining costs.

use super::{
    observer::Observer,
    world::{EPOCH, Settings, World, id_of},
};
use crate::core::{
    membership::MemberState,
    model::{Boot, NetworkId},
};

impl<O: Observer> World<O> {
    /// Makes a world whose machines have run for long: they know each other, are attached to `network`, and are quiet.
    ///
    /// What starting and joining costs is left out, so that worlds of thousands of machines can be made.
    pub fn settled(seed: u64, machines: usize, network: NetworkId, observer: O) -> Self {
        let mut world = Self::bare(seed, machines, observer, Settings::default());
        let boot = Boot::after(Boot::default(), EPOCH.0 / 1000);
        for machine in &mut world.machines {
            machine.disk.boot = boot;
            machine.disk.attached.insert(network);
        }
        let members: Vec<MemberState> = (0..machines).map(|at| world.member(at)).collect();
        for at in 0..machines {
            let now = world.now_at(at);
            let mut node = world.make(at, boot);
            let others = members
                .iter()
                .filter(|member| member.identity.node != id_of(at));
            node.apply_members(now, others.copied().collect());
            // Everybody knows it: the news that it is there need not be carried.
            while node.poll_transmit().is_some() {}
            while node.poll_event().is_some() {}
            node.attach(now, network).expect("a new node can attach");
            world.observer.started(at, &node);
            world.machines[at].node = Some(Box::new(node));
        }
        for at in 1..machines {
            world.exchange(0, at, at);
        }
        for at in 1..machines {
            world.exchange(at, 0, 0);
        }
        for at in 0..machines {
            world.after(at);
        }
        world
    }

    /// Lets a machine ask another for all that it lacks, in no time; what it asks anybody is answered by `answers`.
    fn exchange(&mut self, asker: usize, asked: usize, answers: usize) {
        let now = self.now_at(asker);
        let Some(mut node) = self.machines[asker].node.take() else {
            return;
        };
        node.sync_with(now, id_of(asked));
        while let Some(call) = node.poll_stream() {
            let answering = self.machines[answers].node.as_mut();
            let reply = answering.and_then(|other| other.handle_stream(&call.request).ok());
            match reply {
                Some(reply) => drop(node.handle_stream_reply(now, call.id, &reply)),
                None => node.handle_stream_failed(now, call.id),
            }
        }
        // What it would push of that, all have by then.
        while node.poll_transmit().is_some() {}
        while node.poll_event().is_some() {}
        self.machines[asker].node = Some(node);
    }
}
