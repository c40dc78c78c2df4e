//! Changes of the authority in a cluster of certificates: members that are away, that do not answer, leaders that are lost.

use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::*;

const LIFE: Duration = Duration::from_hours(1);
const FORMER: &[u8] = b"former";
const NEXT: &[u8] = b"next";

/// A member: what it trusts, and who certified it.
#[derive(Clone, Debug)]
struct Member {
    trusts: Vec<Vec<u8>>,
    version: u64,
    certified_by: Vec<u8>,
    live: bool,
}

/// What the cluster agreed on, and what each member has of it.
struct Cluster {
    agreed: AgreedAuthorities,
    members: BTreeMap<NodeId, Member>,
    now: Now,
}

impl Cluster {
    /// A cluster in which the next authority was announced a moment ago.
    fn announced(members: u64) -> Self {
        let member = Member {
            trusts: vec![FORMER.to_vec()],
            version: 0,
            certified_by: FORMER.to_vec(),
            live: true,
        };
        Self {
            agreed: AgreedAuthorities {
                version: 1,
                signs: FORMER.to_vec(),
                other: Some(OtherAuthority::Next {
                    cert_der: NEXT.to_vec(),
                    cross_der: b"next by former".to_vec(),
                }),
                waits_for_nobody: false,
            },
            members: (1..=members)
                .map(|node| (NodeId(node), member.clone()))
                .collect(),
            now: Now::default(),
        }
    }

    fn member(&mut self, node: u64) -> &mut Member {
        self.members.get_mut(&NodeId(node)).unwrap()
    }

    fn present(&self) -> Present {
        let (live, away): (Vec<_>, Vec<_>) =
            self.members.iter().partition(|(_, member)| member.live);
        let ids = |nodes: Vec<(&NodeId, &Member)>| nodes.into_iter().map(|(id, _)| *id).collect();
        Present {
            live: ids(live),
            away: ids(away),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall.0 += u64::try_from(time.as_millis()).unwrap();
    }

    /// Asks for a step and takes it; of those that are told, `answers` says who answers. Checks what must hold at it.
    fn step(&mut self, change: &mut Succession, mut answers: impl FnMut(NodeId) -> bool) -> Step {
        let step = change.step(&self.agreed, &self.present(), self.now);
        let hurry = self.agreed.waits_for_nobody;
        match &step {
            Step::Tell(whom) => {
                for node in whom.iter().filter(|node| answers(**node)) {
                    let member = self.members.get_mut(node).unwrap();
                    member.trusts = self.agreed.trusted().into_iter().map(Vec::from).collect();
                    member.version = self.agreed.version;
                    member.certified_by.clone_from(&self.agreed.signs);
                    let has = Has {
                        version: self.agreed.version,
                        certified: true,
                    };
                    change.handle_has(*node, has);
                }
                self.pass(Duration::from_millis(10));
            }
            Step::Promote => {
                let mut live = self.members.values().filter(|member| member.live);
                let next = NEXT.to_vec();
                assert!(hurry || live.all(|member| member.trusts.contains(&next)));
                self.agreed.version += 1;
                self.agreed.signs = next;
                self.agreed.other = Some(OtherAuthority::Former {
                    cert_der: FORMER.to_vec(),
                    cross_der: b"next by former".to_vec(),
                    since: self.now.wall,
                });
            }
            Step::Retire => {
                let run_out = |since| passed(since, self.now.wall) > LIFE;
                let Some(OtherAuthority::Former { since, .. }) = &self.agreed.other else {
                    panic!("nothing to retire");
                };
                let mut members = self.members.values();
                let all = members.all(|member| member.certified_by == NEXT);
                assert!(hurry || all || run_out(*since));
                self.agreed.version += 1;
                self.agreed.other = None;
            }
            Step::Wait(pause, _) => self.pass(*pause),
            Step::Done => assert_eq!(self.agreed.trusted(), [NEXT]),
        }
        step
    }

    fn until_done(&mut self, change: &mut Succession, most: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        while steps.last() != Some(&Step::Done) && steps.len() < most {
            steps.push(self.step(change, |_everybody| true));
        }
        steps
    }
}

#[test]
fn all_trust_the_next_before_it_signs_and_have_its_certificate_before_the_former_goes() {
    let mut cluster = Cluster::announced(3);
    let mut change = Succession::new(LIFE);

    let steps = cluster.until_done(&mut change, 100);

    let all = Step::Tell((1..=3).map(NodeId).collect());
    let wanted = [
        all.clone(),
        Step::Promote,
        all.clone(),
        Step::Retire,
        all,
        Step::Done,
    ];
    assert_eq!(steps, wanted);
}

#[test]
fn a_live_member_that_does_not_answer_is_waited_for_and_named() {
    let mut cluster = Cluster::announced(3);
    let mut change = Succession::new(LIFE);

    for _ in 0..200 {
        let step = cluster.step(&mut change, |node| node != NodeId(2));

        if let Step::Wait(_, whom) = step {
            assert_eq!(whom, BTreeSet::from([NodeId(2)]));
        }
    }

    assert_eq!(cluster.agreed.version, 1);
    cluster.until_done(&mut change, 100);
    assert_eq!(cluster.agreed.version, 3);
}

#[test]
fn a_member_that_is_away_keeps_the_former_one_trusted_until_it_is_back() {
    let mut cluster = Cluster::announced(3);
    cluster.member(2).live = false;
    let mut change = Succession::new(LIFE);

    cluster.until_done(&mut change, 100);
    assert_eq!(
        cluster.agreed.trusted(),
        [NEXT, FORMER],
        "it signs, nothing is dropped"
    );
    cluster.member(2).live = true;
    cluster.until_done(&mut change, 100);

    assert_eq!(cluster.agreed.trusted(), [NEXT]);
}

#[test]
fn who_is_away_for_longer_than_certificates_live_is_waited_for_no_longer() {
    let mut cluster = Cluster::announced(3);
    cluster.member(2).live = false;
    let mut change = Succession::new(LIFE);
    cluster.until_done(&mut change, 10);

    cluster.pass(LIFE);
    cluster.until_done(&mut change, 100);

    assert_eq!(cluster.agreed.trusted(), [NEXT]);
}

#[test]
fn a_cluster_that_waits_for_nobody_is_through_in_three_times_the_time_of_a_step() {
    let mut cluster = Cluster::announced(4);
    cluster.agreed.waits_for_nobody = true;
    cluster.member(3).live = false;
    let mut change = Succession::new(LIFE);

    while cluster.step(&mut change, |node| node != NodeId(2)) != Step::Done {
        assert!(cluster.now.instant < Instant::default() + 4 * SPREAD_FOR);
    }
}

#[test]
fn the_next_leader_goes_on_where_a_lost_one_was_cut_off() {
    for after in 0..6 {
        let mut cluster = Cluster::announced(3);
        let mut lost = Succession::new(LIFE);
        for _ in 0..after {
            cluster.step(&mut lost, |_everybody| true);
        }

        let steps = cluster.until_done(&mut Succession::new(LIFE), 100);

        assert_eq!(steps.last(), Some(&Step::Done), "after {after}: {steps:?}");
        assert_eq!(cluster.agreed.version, 3);
    }
}

/// Has members come and go, and leaders be lost, at random.
fn disturb(cluster: &mut Cluster, change: &mut Succession, rng: &mut impl Rng) {
    let members = cluster.members.len() as u64;
    let node = rng.random_range(1..=members);
    match rng.random_range(0..10) {
        0 => cluster.member(node).live = false,
        1 | 2 => cluster.member(node).live = true,
        3 => *change = Succession::new(LIFE),
        4 => cluster.pass(Duration::from_secs(rng.random_range(0..600))),
        _ => {}
    }
}

proptest! {
    /// What must hold at each step is checked where the steps are taken.
    #[test]
    fn whoever_comes_goes_or_is_lost_nobody_is_cut_off_and_it_ends(seed in any::<u64>(), members in 1u64..6) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut cluster = Cluster::announced(members);
        let mut change = Succession::new(LIFE);

        for _ in 0..100 {
            disturb(&mut cluster, &mut change, &mut rng);
            let mut answering = StdRng::seed_from_u64(rng.random());
            if cluster.step(&mut change, |_| answering.random_bool(0.7)) == Step::Done {
                return Ok(());
            }
        }
        for node in 1..=members {
            cluster.member(node).live = true;
        }

        let steps = cluster.until_done(&mut change, 1_000);
        prop_assert_eq!(steps.last(), Some(&Step::Done));
    }
}
