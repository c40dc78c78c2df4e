//! Rotations in a cluster of rings: members that do not answer, rotations that are cut off, several at a time.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::core::wire::keyring::{ClusterKey, Keyring};

/// What the cluster agreed on, and what each member has of it.
struct Cluster {
    ring: AgreedRing,
    /// The version of the ring of each live member but the one that rotates.
    members: BTreeMap<NodeId, u64>,
    now: Instant,
    rng: StdRng,
    added: usize,
}

impl Cluster {
    fn new(members: u64, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let first = KeyId(rng.random());
        Self {
            ring: AgreedRing {
                version: 0,
                keys: Keyring::new(first, ClusterKey::random(&mut rng)),
            },
            members: (1..=members).map(|node| (NodeId(node), 0)).collect(),
            now: Instant::default(),
            rng,
            added: 0,
        }
    }

    fn alive(&self) -> BTreeSet<NodeId> {
        self.members.keys().copied().collect()
    }

    fn seals(&self) -> KeyId {
        self.ring.keys.primary().0
    }

    fn begin(&self, goal: Goal) -> Rotation {
        Rotation::new(goal, self.now)
    }

    /// Asks for a step and takes it; of those that are told, `answers` says who answers. Returns the step.
    fn step(&mut self, rotation: &mut Rotation, answers: impl Fn(NodeId) -> bool) -> Step {
        let step = rotation.step(&self.ring, &self.alive(), self.now);
        match &step {
            Step::Add => {
                let id = self.ring.keys.free_id();
                let key = ClusterKey::random(&mut self.rng);
                self.ring.keys.add(id, key);
                self.ring.version += 1;
                self.added += 1;
                rotation.handle_added(id);
            }
            Step::Promote(id) => {
                assert!(self.ring.keys.promote(*id));
                self.ring.version += 1;
            }
            Step::Retire => {
                self.ring.keys.retire();
                self.ring.version += 1;
            }
            Step::Tell { whom, within, .. } => {
                assert!(*within <= SPREAD_FOR);
                for node in whom.iter().filter(|node| answers(**node)) {
                    let has = self.ring.version;
                    self.members.insert(*node, has);
                    rotation.handle_has(*node, has);
                }
            }
            Step::Pause(pause) => self.now += *pause,
            Step::Done(_) | Step::Overtaken => {}
        }
        step
    }

    fn finish(&mut self, rotation: &mut Rotation) -> Vec<Step> {
        let mut steps = Vec::new();
        while !matches!(steps.last(), Some(Step::Done(_) | Step::Overtaken)) {
            steps.push(self.step(rotation, |_everybody| true));
        }
        steps
    }
}

fn told(step: &Step) -> bool {
    matches!(step, Step::Tell { .. })
}

#[test]
fn all_open_with_a_key_before_it_seals_and_all_seal_with_it_before_the_former_ones_go() {
    let mut cluster = Cluster::new(3, 1);
    let mut rotation = cluster.begin(Goal::Replace);

    let steps = cluster.finish(&mut rotation);

    let key = cluster.seals();
    assert!(
        told(&steps[1]) && told(&steps[3]) && told(&steps[5]),
        "{steps:?}"
    );
    assert_eq!((&steps[0], &steps[2]), (&Step::Add, &Step::Promote(key)));
    assert_eq!(
        steps[4..],
        [Step::Retire, steps[5].clone(), Step::Done(key)]
    );
    assert_eq!(cluster.ring.keys.keys().count(), 1);
}

#[test]
fn a_rotation_that_a_lost_leader_cut_off_is_gone_on_with_and_adds_no_second_key() {
    let mut cluster = Cluster::new(3, 1);
    let first = cluster.seals();
    let mut lost = cluster.begin(Goal::Rotate);
    cluster.step(&mut lost, |node| node == NodeId(1));
    cluster.step(&mut lost, |node| node == NodeId(1));
    let added = cluster.ring.keys.newest();
    drop(lost);

    let mut next = cluster.begin(Goal::Rotate);
    let steps = cluster.finish(&mut next);

    assert!(told(&steps[0]), "{steps:?}");
    assert_eq!((cluster.added, cluster.seals()), (1, added));
    assert!(cluster.ring.keys.get(first).is_some());
}

#[test]
fn what_replaces_the_keys_never_has_one_seal_that_was_there_before() {
    let mut cluster = Cluster::new(3, 1);
    let mut lost = cluster.begin(Goal::Rotate);
    cluster.step(&mut lost, |_everybody| true);
    let known_to_the_removed = cluster.ring.keys.newest();

    let mut next = cluster.begin(Goal::Replace);
    cluster.finish(&mut next);

    assert_ne!(cluster.seals(), known_to_the_removed);
    assert_eq!(cluster.ring.keys.get(known_to_the_removed), None);
}

#[test]
fn who_does_not_answer_is_waited_for_no_longer_than_each_ring_has() {
    let mut cluster = Cluster::new(3, 1);
    let mut rotation = cluster.begin(Goal::Rotate);

    let mut last = Step::Add;
    while !matches!(last, Step::Done(_) | Step::Overtaken) {
        last = cluster.step(&mut rotation, |node| node != NodeId(2));
    }

    assert_eq!(last, Step::Done(cluster.seals()));
    let behind = rotation.behind(cluster.ring.version, &cluster.alive());
    assert_eq!(behind, BTreeSet::from([NodeId(2)]));
    let passed = cluster.now.since_start();
    assert!(passed >= 2 * SPREAD_FOR, "{passed:?}");
    assert!(passed < 2 * SPREAD_FOR + 2 * TELL_AGAIN, "{passed:?}");
}

#[test]
fn who_is_down_is_not_waited_for() {
    let mut cluster = Cluster::new(3, 1);
    let mut rotation = cluster.begin(Goal::Rotate);
    cluster.step(&mut rotation, |_nobody| false);
    cluster.step(&mut rotation, |node| node != NodeId(2));

    cluster.members.remove(&NodeId(2));
    cluster.finish(&mut rotation);

    assert!(cluster.now.since_start() <= TELL_AGAIN);
}

#[test]
fn a_key_that_others_retire_all_the_time_ends_in_an_error_and_not_never() {
    let mut cluster = Cluster::new(1, 1);
    let mut rotation = cluster.begin(Goal::Replace);
    cluster.step(&mut rotation, |_everybody| true);
    cluster.ring.keys.retire();

    let steps = cluster.finish(&mut rotation);

    assert_eq!(steps.last(), Some(&Step::Overtaken));
    assert_eq!(cluster.added, 1);
}

#[test]
fn it_is_due_when_its_time_has_passed_or_a_key_was_left_that_seals_nothing() {
    let mut cluster = Cluster::new(0, 1);
    let every = Duration::from_hours(12);
    let at = |seconds: u64| UnixMillis(seconds * 1000);
    let due = |cluster: &Cluster, now| is_due(&cluster.ring, at(100), at(now), every);

    assert!(!due(&cluster, 100 + 43_199));
    assert!(due(&cluster, 100 + 43_200));
    assert!(!due(&cluster, 0), "the clock was set back");
    let mut lost = cluster.begin(Goal::Rotate);
    cluster.step(&mut lost, |_everybody| true);
    assert!(!due(&cluster, 100 + 29), "it may still be under way");
    assert!(due(&cluster, 100 + 30));
}

proptest! {
    /// Rotations of either goal, cut off anywhere, with answers that get lost: a key seals only once all live members open with
    /// it or had their time, none is added that was not asked for, and the last rotation ends.
    #[test]
    fn no_cut_and_no_lost_answer_makes_a_key_seal_too_early(
        seed in any::<u64>(),
        members in 0_u64..6,
        cuts in prop::collection::vec((any::<bool>(), 0_usize..12), 0..6),
    ) {
        let mut cluster = Cluster::new(members, seed);
        let mut replacements = 0;
        for (replace, steps) in cuts {
            let goal = if replace { Goal::Replace } else { Goal::Rotate };
            replacements += usize::from(replace);
            let mut rotation = cluster.begin(goal);
            for _ in 0..steps {
                walk(&mut cluster, &mut rotation)?;
            }
        }
        let (before, left) = (cluster.seals(), cluster.ring.keys.newest());
        let known = cluster.added;

        let mut last = cluster.begin(Goal::Rotate);
        let steps = cluster.finish(&mut last);

        prop_assert!(matches!(steps.last(), Some(Step::Done(_))), "{:?}", steps);
        prop_assert_ne!(cluster.seals(), before);
        prop_assert_eq!(cluster.added - known, usize::from(left == before));
        prop_assert!(cluster.added <= 7 + replacements);
        prop_assert!(cluster.members.values().all(|has| *has == cluster.ring.version));
    }
}

/// Takes one step, with answers that get lost by chance.
fn walk(cluster: &mut Cluster, rotation: &mut Rotation) -> Result<(), TestCaseError> {
    let lost = cluster.rng.random::<u64>();
    let began = cluster.now;
    let (seals, version) = (cluster.seals(), cluster.ring.version);
    let step = cluster.step(rotation, |node| lost >> (node.0 % 64) & 1 == 0);
    if let Step::Promote(key) = step {
        let all_have = cluster.members.values().all(|has| *has >= version);
        let waited = rotation
            .spread
            .as_ref()
            .is_some_and(|spread| began >= spread.until);
        prop_assert!(all_have || waited);
        prop_assert!(key.is_after(seals));
    }
    Ok(())
}
