//! The calm: no more faults, and all must agree within a bound that follows from how the nodes are set up; then nothing happens
//! for as long as things are kept, and what is kept must be what stands.

use std::time::Duration;

use weft::{core::netdb, sim::Settings};

use super::{
    chaos::Run,
    check::{self, Violation},
    schedule::PAUSE_MAX,
    world::draw,
};

/// How often it is looked whether all agree.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// And whether a crash was noticed.
const LOOK_OFTEN: Duration = Duration::from_millis(10);

/// Returns how long the calm may last until all agree, among that many nodes, those that are gone for good included.
///
/// The longest way there: programs stand still; streams that were cut time out; the dead are noticed, after a turn of probes
/// and half of it again; those wrongly held for down are asked one at a time, at random, so that after as many rounds as four
/// times their number all but e⁻⁴ of the pairs have met, and who has returned is pushed to all; generations that were never
/// ready are waited for; then the digests bring what differs along the ring.
pub fn bound(settings: &Settings, nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let membership = &settings.membership;
    let noticed = membership.probe_period * nodes * 2 + membership.suspect_for;
    let returned = membership.announce_down_every.mul_f64(1.25) * nodes * 4;
    let digests = settings.netdb.digest_every.mul_f64(1.1) * nodes;
    PAUSE_MAX + netdb::STREAM_RETRIED_AFTER + noticed + returned + settings.netdb.grace + digests
}

/// Returns how long things are kept that nobody needs: the logs of the dead, tombstones, generations that were followed.
pub fn kept_for(settings: &Settings, nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let rounds = settings.netdb.digest_every.mul_f64(1.1) * (nodes + 2);
    settings.netdb.retention.max(settings.netdb.grace) + rounds
}

/// Ends all faults, waits until all agree, then checks that it is so and stays so. Returns how long it took.
pub(super) fn calm_down(run: &mut Run) -> Result<Duration, Violation> {
    run.end_faults();
    let lives = |id: u64| (id >> 32) as usize + 1;
    let ids = run.world.machines.iter().map(|machine| machine.id.0);
    let nodes = ids.map(lives).sum();
    let limit = bound(&run.world.settings, nodes);
    let is_calm = |world: &mut super::World| agree(world).is_ok();
    let took = run.world.run_until(LOOK_EVERY, limit, is_calm);
    agree(&run.world)?;
    check_all(run)?;
    let rest = kept_for(&run.world.settings, nodes);
    run.world.run_for(rest);
    agree(&run.world)?;
    check_all(run)?;
    check::only_what_stands_is_held(&run.world)?;
    crash_one(run)?;
    Ok(took.unwrap_or(limit))
}

/// Ends one program amid the calm: all must notice in time.
fn crash_one(run: &mut Run) -> Result<(), Violation> {
    let world = &mut run.world;
    let at = draw(&mut world.rng, world.machines.len());
    let gone = world.machines[at].id;
    let limit = check::hidden_within(&world.settings.membership);
    run.crash(at);
    let is_hidden = |world: &mut super::World| check::is_hidden(world, gone).is_ok();
    let took = run.world.run_until(LOOK_OFTEN, limit, is_hidden);
    check::is_hidden(&run.world, gone)?;
    run.seen.hidden_after = took.unwrap_or(limit);
    check_all(run)
}

fn agree(world: &super::World) -> Result<(), Violation> {
    check::members_agree(world)?;
    check::converged(world)
}

fn check_all(run: &mut Run) -> Result<(), Violation> {
    for at in 0..run.world.machines.len() {
        run.check(at)?;
    }
    check::mirrored(&run.world)?;
    run.world.observer.nonces.check()
}
