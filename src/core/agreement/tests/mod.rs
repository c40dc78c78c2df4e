//! Who stands for election and when, alone and among others in virtual time.

mod world;

use std::{collections::BTreeSet, time::Duration};

use rand::{SeedableRng, rngs::StdRng};

use self::world::{PATIENCE, World};
use super::{Ballot, Election, Sight, Step, is_heard, would_vote};
use crate::core::model::{Instant, NodeId};

const SEEDS: u64 = 200;

#[test]
fn a_voter_that_hears_nobody_deposes_nobody_however_long_and_not_on_its_return() {
    for (seed, voters) in (0..SEEDS).zip([3, 5, 7].into_iter().cycle()) {
        let (mut world, leader) = World::led(voters, seed);
        let term = world.term(leader);
        let others = world.others(leader);
        let deaf = others[world.draw(others.len())];

        world.deaf.insert(deaf);
        world.run(Duration::from_secs(60));
        let alone = (world.missed(deaf), world.term(deaf));
        world.deaf.clear();
        world.run(Duration::from_secs(5));

        assert_eq!(alone, (true, term), "seed {seed}");
        assert_eq!(world.stood, [], "seed {seed}");
        assert_eq!(
            (world.leader(), world.term(leader)),
            (Some(leader), term),
            "seed {seed}"
        );
        assert!(!world.missed(deaf), "seed {seed}");
    }
}

/// Dead voters are passed over, a turn each; whoever is denied since another's lease ends a moment later asks again within a turn.
#[test]
fn a_leader_that_dies_is_followed_after_the_lease_and_a_few_turns() {
    let mut took = Vec::new();
    for (seed, voters) in (0..SEEDS * 5).zip([3, 5, 7].into_iter().cycle()) {
        let (mut world, leader) = World::led(voters, seed);
        let dead = world.draw((voters / 2) as usize) as u32;
        for id in world.others(leader).into_iter().take(dead as usize) {
            world.halt(id);
        }
        world.halt(leader);
        let begun = world.now;

        let next = world.until_led(Duration::from_secs(10));

        let span = world.now.saturating_duration_since(begun);
        let most = PATIENCE.lease + PATIENCE.turn * (2 + dead) + Duration::from_millis(60);
        assert!(next.is_some() && span <= most, "seed {seed}: {span:?}");
        assert_eq!(
            world.stood.len(),
            1,
            "seed {seed}: two stood: {:?}",
            world.stood
        );
        if dead == 0 {
            took.push(span);
        }
    }
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(slowest < Duration::from_millis(1_250), "{slowest:?}");
    assert!(median < Duration::from_millis(1_050), "{median:?}");
}

#[test]
fn a_leader_that_is_known_to_be_gone_is_followed_sooner_and_by_one() {
    for seed in 0..SEEDS {
        let (mut world, leader) = World::led(3, seed);
        world.halt(leader);
        let begun = world.now;
        world.run(PATIENCE.lease / 2);

        world.hint_gone(leader);
        let next = world.until_led(Duration::from_secs(10));

        let span = world.now.saturating_duration_since(begun);
        assert!(next.is_some(), "seed {seed}");
        assert!(
            span < PATIENCE.lease + PATIENCE.turn,
            "seed {seed}: {span:?}"
        );
        assert_eq!(world.stood.len(), 1, "seed {seed}");
    }
}

/// Every tenth message is lost, and comes a retransmission later.
#[test]
fn a_leader_whose_words_are_late_keeps_leading() {
    for seed in 0..20 {
        let (mut world, leader) = World::led(3, seed);
        world.loss = 0.1;

        world.run(Duration::from_secs(600));

        assert_eq!(world.stood, [], "seed {seed}");
        assert_eq!(world.leader(), Some(leader));
    }
}

#[test]
fn a_leader_that_stands_still_for_less_than_the_lease_keeps_leading_and_for_longer_does_not() {
    let mut deposed = 0;
    for seed in 0..SEEDS {
        let (mut world, leader) = World::led(3, seed);
        world.halt(leader);
        world.run(PATIENCE.lease * 2 / 3);
        world.go_on(leader);
        world.run(Duration::from_secs(5));
        let shortly = (world.stood.len(), world.leader());
        let term = world.term(leader);
        world.halt(leader);
        world.run(PATIENCE.lease * 2);
        world.go_on(leader);
        world.run(Duration::from_secs(5));

        assert_eq!(shortly, (0, Some(leader)), "seed {seed}");
        deposed += u64::from(world.leader() != Some(leader) && world.term(leader) > term);
    }
    assert_eq!(deposed, SEEDS);
}

#[test]
fn voters_that_start_together_elect_one_of_them_at_once() {
    for (seed, voters) in (0..SEEDS).zip([1, 3, 5, 7].into_iter().cycle()) {
        let mut world = World::cold(voters, seed);

        let leader = world.until_led(PATIENCE.turn * 2);

        assert!(leader.is_some(), "seed {seed}");
        assert_eq!(world.stood.len(), 1, "seed {seed}");
    }
}

#[test]
fn who_lacks_what_others_have_is_passed_over() {
    for seed in 0..SEEDS {
        let (mut world, leader) = World::led(3, seed);
        let others = world.others(leader);
        let whole = others[world.draw(2)];
        world.set_log(whole, 2);
        world.set_log(leader, 2);
        world.halt(leader);

        let next = world.until_led(Duration::from_secs(3));

        assert_eq!(next, Some(whole), "seed {seed}");
        assert_eq!(world.stood.len(), 1, "seed {seed}");
    }
}

#[test]
fn of_a_change_of_voters_most_of_either_half_must_be_for_it() {
    let halves = [set(&[1, 2, 3]), set(&[1, 4, 5])];
    let mut rng = StdRng::seed_from_u64(1);
    let mut election = Election::new(NodeId(1), PATIENCE);
    let mut sight = sight(&halves);
    let asked = until_asked(&mut election, &mut sight, &mut rng);

    election.handle_answer(NodeId(2), true);
    election.handle_answer(NodeId(3), true);
    election.handle_answer(NodeId(9), true);
    let of_one = election.step(&sight, &mut rng);
    election.handle_answer(NodeId(5), true);
    let of_both = election.step(&sight, &mut rng);

    assert_eq!(asked, set(&[2, 3, 4, 5]));
    assert!(matches!(of_one, Step::Wait(_)), "{of_one:?}");
    assert_eq!(of_both, Step::Stand);
    // The engine is given the time to take it up.
    assert!(matches!(election.step(&sight, &mut rng), Step::Wait(_)));
}

#[test]
fn a_round_ends_when_nobody_is_left_who_could_turn_it_but_the_leader_that_is_missed() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut election = Election::new(NodeId(1), PATIENCE);
    let mut sight = sight(&[set(&[1, 2, 3])]);
    until_asked(&mut election, &mut sight, &mut rng);

    let begun = election.step(&sight, &mut rng);
    election.handle_answer(NodeId(2), false);
    let denied = election.step(&sight, &mut rng);
    election.handle_answer(NodeId(3), false);
    let hopeless = election.step(&sight, &mut rng);

    assert_eq!(begun, Step::Wait(PATIENCE.lease / 2));
    assert_eq!(denied, Step::Wait(PATIENCE.turn / 2));
    assert!(
        matches!(hopeless, Step::Wait(pause) if pause <= PATIENCE.turn && pause >= PATIENCE.turn / 2)
    );
    assert_eq!(election.missed(), Some((NodeId(3), 7)));
}

#[test]
fn who_cannot_be_elected_asks_nobody_and_says_that_the_leader_is_missed() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut election = Election::new(NodeId(1), PATIENCE);
    let mut sight = Sight {
        able: false,
        ..sight(&[set(&[1, 2, 3])])
    };
    sight.silence = Some(PATIENCE.lease * 2);

    let step = election.step(&sight, &mut rng);
    let missed = election.missed();
    sight.silence = Some(Duration::ZERO);
    election.step(&sight, &mut rng);

    assert!(matches!(step, Step::Wait(_)), "{step:?}");
    assert_eq!(
        (missed, election.missed()),
        (Some((NodeId(3), 7)), None),
        "it is heard again"
    );
}

#[test]
fn a_vote_is_for_whom_knows_no_less_and_while_no_leader_is_heard() {
    let lease = PATIENCE.lease;
    let ballot = sight(&[]).ballot;
    let stands = Ballot {
        elected: false,
        ..ballot
    };

    assert!(would_vote(false, &3, &3) && would_vote(false, &3, &4));
    assert!(!would_vote(false, &3, &2) && !would_vote(true, &3, &4));
    assert!(is_heard(ballot, Some(lease), lease));
    assert!(!is_heard(
        ballot,
        Some(lease + Duration::from_nanos(1)),
        lease
    ));
    assert!(!is_heard(ballot, None, lease) && !is_heard(stands, Some(Duration::ZERO), lease));
}

fn set(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// Node 3 leads in term 7, and was just heard.
fn sight(halves: &[BTreeSet<NodeId>]) -> Sight {
    Sight {
        now: Instant::from_start(Duration::from_secs(9)),
        may_stand: true,
        able: true,
        voters: halves.to_vec(),
        ballot: Ballot {
            term: 7,
            node: NodeId(3),
            elected: true,
        },
        silence: Some(Duration::ZERO),
    }
}

/// Has the leader be silent until others are asked; returns whom.
fn until_asked(election: &mut Election, sight: &mut Sight, rng: &mut StdRng) -> BTreeSet<NodeId> {
    loop {
        match election.step(sight, rng) {
            Step::Wait(pause) => {
                sight.now += pause;
                sight.silence = sight.silence.map(|silence| silence + pause);
            }
            Step::Ask { voters, term, .. } => {
                assert_eq!(term, sight.ballot.term + 1);
                return voters;
            }
            step @ (Step::Rest | Step::Stand) => panic!("{step:?}"),
        }
    }
}
