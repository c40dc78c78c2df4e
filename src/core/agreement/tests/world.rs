//! Voters in virtual time: each decides by [`Election`], and the engine below it is played by the rules of Raft.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::core::{
    agreement::{Ballot, Election, Patience, Sight, Step, is_heard, most, would_vote},
    model::{Instant, NodeId},
};

pub(super) const PATIENCE: Patience = Patience {
    lease: Duration::from_secs(1),
    turn: Duration::from_millis(150),
};

/// How often a leader speaks within the lease.
const SPEAKS: u32 = 3;

/// How long a stream waits before it sends again what was lost (RFC 6298 §2.4 says a second; Linux waits this long).
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// Voters and what is under way between them.
pub(super) struct World {
    pub(super) now: Instant,
    voters: BTreeMap<NodeId, Voter>,
    events: BTreeMap<(Instant, u64), Event>,
    numbered: u64,
    rng: StdRng,
    /// How long a message is under way, the disk of whom it is for included.
    pub(super) delay: Range<Duration>,
    /// How likely it is to be lost, and sent again.
    pub(super) loss: f64,
    /// Who hears nothing.
    pub(super) deaf: BTreeSet<NodeId>,
    /// Who stood, and in which term.
    pub(super) stood: Vec<(NodeId, u64)>,
}

struct Voter {
    up: bool,
    election: Election,
    ballot: Ballot,
    heard: Option<Instant>,
    leads: bool,
    votes: BTreeSet<NodeId>,
    log: u64,
    round: u64,
    woken: u64,
}

enum Event {
    Wake(NodeId, u64),
    Speak(NodeId, u64),
    Deliver(NodeId, NodeId, Message),
}

#[derive(Clone, Copy)]
enum Message {
    Leads(Ballot),
    WouldYou { round: u64, log: u64 },
    Would { round: u64, would: bool },
    Stands { ballot: Ballot, log: u64 },
    Voted { term: u64, granted: bool },
}

impl World {
    /// Voters that have just started, and have led nobody before.
    pub(super) fn cold(voters: u64, seed: u64) -> Self {
        let nobody = Ballot {
            term: 0,
            node: NodeId(0),
            elected: false,
        };
        let voter = |id| Voter {
            up: true,
            election: Election::new(NodeId(id), PATIENCE),
            ballot: nobody,
            heard: None,
            leads: false,
            votes: BTreeSet::new(),
            log: 1,
            round: 0,
            woken: 0,
        };
        let mut world = Self {
            now: Instant::from_start(Duration::from_secs(1)),
            voters: (1..=voters).map(|id| (NodeId(id), voter(id))).collect(),
            events: BTreeMap::new(),
            numbered: 0,
            rng: StdRng::seed_from_u64(seed),
            delay: Duration::from_micros(200)..Duration::from_millis(10),
            loss: 0.0,
            deaf: BTreeSet::new(),
            stood: Vec::new(),
        };
        let all: Vec<NodeId> = world.voters.keys().copied().collect();
        for id in all {
            world.decide(id);
        }
        world
    }

    /// Voters that have had a leader for a while.
    pub(super) fn led(voters: u64, seed: u64) -> (Self, NodeId) {
        let mut world = Self::cold(voters, seed);
        let leader = world.until_led(Duration::from_secs(10)).unwrap();
        // Where in its beat it dies is up to chance.
        let more = world
            .rng
            .random_range(Duration::from_secs(2)..Duration::from_secs(3));
        world.run(more);
        world.stood.clear();
        (world, leader)
    }

    /// Returns who leads: of several the one in the newest term.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = self
            .voters
            .iter()
            .filter(|(_, voter)| voter.up && voter.leads);
        let newest = leads.max_by_key(|(_, voter)| voter.ballot.term);
        newest.map(|(id, _)| *id)
    }

    pub(super) fn term(&self, id: NodeId) -> u64 {
        self.voters[&id].ballot.term
    }

    pub(super) fn missed(&self, id: NodeId) -> bool {
        self.voters[&id].election.missed().is_some()
    }

    pub(super) fn others(&self, than: NodeId) -> Vec<NodeId> {
        let ids = self.voters.keys().copied();
        ids.filter(|id| *id != than).collect()
    }

    pub(super) fn draw(&mut self, among: usize) -> usize {
        self.rng.random_range(0..among)
    }

    pub(super) fn set_log(&mut self, id: NodeId, log: u64) {
        self.voter(id).log = log;
    }

    /// Ends a voter, or has it stand still with all that it knows.
    pub(super) fn halt(&mut self, id: NodeId) {
        self.voter(id).up = false;
    }

    /// Has a voter that stood still go on.
    pub(super) fn go_on(&mut self, id: NodeId) {
        self.voter(id).up = true;
        if self.voters[&id].leads {
            self.speak(id);
        }
        self.decide(id);
    }

    pub(super) fn hint_gone(&mut self, leader: NodeId) {
        let term = self.term(leader);
        for id in self.others(leader) {
            self.voter(id).election.handle_gone((leader, term));
            self.decide(id);
        }
    }

    pub(super) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.next_event(until) {}
        self.now = until;
    }

    /// Runs until somebody leads that is up; nothing if nobody does in time.
    pub(super) fn until_led(&mut self, limit: Duration) -> Option<NodeId> {
        let until = self.now + limit;
        while self.leader().is_none() {
            if !self.next_event(until) {
                return None;
            }
        }
        self.leader()
    }

    fn next_event(&mut self, until: Instant) -> bool {
        match self.events.first_entry() {
            Some(first) if first.key().0 <= until => {
                let ((at, _), event) = first.remove_entry();
                self.now = at;
                self.handle(event);
                true
            }
            Some(_) | None => false,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(id, woken) => {
                if self.voters[&id].woken == woken {
                    self.decide(id);
                }
            }
            Event::Speak(id, term) => {
                let voter = &self.voters[&id];
                if voter.up && voter.leads && voter.ballot.term == term {
                    self.speak(id);
                }
            }
            Event::Deliver(from, to, message) => {
                if self.voters[&to].up && !self.deaf.contains(&to) {
                    self.receive(from, to, message);
                    self.decide(to);
                }
            }
        }
    }

    fn receive(&mut self, from: NodeId, to: NodeId, message: Message) {
        let now = self.now;
        let hears = self.hears(to);
        let voter = self.voter(to);
        match message {
            Message::Leads(ballot) => {
                if ballot.term >= voter.ballot.term {
                    voter.leads = false;
                    voter.ballot = ballot;
                    voter.heard = Some(now);
                }
            }
            Message::WouldYou { round, log } => {
                let would = would_vote(hears, &voter.log, &log);
                self.send(to, from, Message::Would { round, would });
            }
            Message::Would { round, would } => {
                if round == voter.round {
                    voter.election.handle_answer(from, would);
                }
            }
            Message::Stands { ballot, log } => {
                let granted = !hears && ballot.term > voter.ballot.term && log >= voter.log;
                if granted {
                    voter.leads = false;
                    voter.ballot = ballot;
                    voter.heard = Some(now);
                }
                let term = ballot.term;
                self.send(to, from, Message::Voted { term, granted });
            }
            Message::Voted { term, granted } => {
                let stands = voter.ballot.node == to && !voter.ballot.elected;
                if !granted || !stands || voter.ballot.term != term {
                    return;
                }
                voter.votes.insert(from);
                self.count(to);
            }
        }
    }

    /// Does what the election decides until it waits.
    fn decide(&mut self, id: NodeId) {
        let (now, all) = (self.now, self.others(NodeId(0)));
        loop {
            let voter = self.voters.get_mut(&id).unwrap();
            if !voter.up {
                return;
            }
            let sight = Sight {
                now,
                may_stand: !voter.leads,
                able: true,
                voters: vec![all.iter().copied().collect()],
                ballot: voter.ballot,
                silence: voter.heard.map(|at| now.saturating_duration_since(at)),
            };
            match voter.election.step(&sight, &mut self.rng) {
                Step::Rest => return,
                Step::Wait(pause) => {
                    voter.woken += 1;
                    let event = Event::Wake(id, voter.woken);
                    return self.schedule(now + pause, event);
                }
                Step::Ask { voters, .. } => {
                    voter.round += 1;
                    let (round, log) = (voter.round, voter.log);
                    for other in voters {
                        self.send(id, other, Message::WouldYou { round, log });
                    }
                }
                Step::Stand => self.stand(id),
            }
        }
    }

    fn stand(&mut self, id: NodeId) {
        let now = self.now;
        let voter = self.voter(id);
        voter.ballot = Ballot {
            term: voter.ballot.term + 1,
            node: id,
            elected: false,
        };
        voter.heard = Some(now);
        voter.votes = BTreeSet::from([id]);
        let (ballot, log) = (voter.ballot, voter.log);
        self.stood.push((id, ballot.term));
        for other in self.others(id) {
            self.send(id, other, Message::Stands { ballot, log });
        }
        self.count(id);
    }

    fn count(&mut self, id: NodeId) {
        let all: BTreeSet<NodeId> = self.voters.keys().copied().collect();
        let voter = self.voter(id);
        if most(&all, |other| voter.votes.contains(other)) {
            voter.ballot.elected = true;
            voter.leads = true;
            self.speak(id);
        }
    }

    fn speak(&mut self, id: NodeId) {
        let ballot = self.voters[&id].ballot;
        for other in self.others(id) {
            self.send(id, other, Message::Leads(ballot));
        }
        let next = self.now + PATIENCE.lease / SPEAKS;
        self.schedule(next, Event::Speak(id, ballot.term));
    }

    fn hears(&self, id: NodeId) -> bool {
        let voter = &self.voters[&id];
        let silence = voter.heard.map(|at| self.now.saturating_duration_since(at));
        voter.leads || is_heard(voter.ballot, silence, PATIENCE.lease)
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let mut takes = self.rng.random_range(self.delay.clone());
        while self.rng.random_bool(self.loss) {
            takes += RETRANSMISSION;
        }
        self.schedule(self.now + takes, Event::Deliver(from, to, message));
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.numbered += 1;
        self.events.insert((at, self.numbered), event);
    }

    fn voter(&mut self, id: NodeId) -> &mut Voter {
        self.voters.get_mut(&id).unwrap()
    }
}
