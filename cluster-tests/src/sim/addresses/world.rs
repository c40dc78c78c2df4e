//! The cluster: its clock, its network, and what happens in it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use weft::core::{
    allocator::{
        Action, Allocator, AllocatorError, Command, NetworkWish, Outcome, Secret, SubnetRequest,
        SubnetWish, TokenSecret,
    },
    ipam::{Fresh, Lease},
    model::{ClusterId, Hlc, Instant, Name, NetworkId, NodeId, Prefix},
    wire::keyring::{ClusterKey, KeyId, Keyring},
};

use super::{
    Checks, Defect, Tally, Violation, check,
    check::Rested,
    gossip::{Gossip, Write},
    log::{Applied, Log},
    node::Node,
    operation::{Operation, Step, Wish, of, unnumbered},
};

/// How many nodes there are; the first three vote.
const NODES: u64 = 5;
pub(super) const VOTERS: u64 = 3;
/// How many endpoints a node has at most.
const ENDPOINTS_MAX: usize = 12;
/// How long a node waits for an answer, and how long before it asks again.
const PROPOSE_MILLIS: u64 = 10_000;
const RETRY_MILLIS: u64 = 1_000;

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Act(NodeId),
    Tick(NodeId),
    Hear {
        to: NodeId,
        owner: NodeId,
    },
    Arrive {
        from: NodeId,
        command: Command,
    },
    Commit,
    Answer {
        to: NodeId,
        life: u64,
        request: u128,
        applied: Applied,
    },
    Ask {
        node: NodeId,
        life: u64,
        network: NetworkId,
        request: u128,
    },
    Stop(NodeId),
    Disturb,
}

/// The cluster in a run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: StdRng,
    /// In milliseconds.
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    requests: u128,
    pub(super) names: u64,
    pub(super) log: Log,
    pub(super) gossip: Gossip,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) checks: Checks,
    defect: Option<Defect>,
    pub(super) tally: Tally,
}

impl World {
    pub(super) fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = Self {
            log: Log::new(founded(&mut rng)),
            rng,
            now: 1_000_000,
            queue: BTreeMap::new(),
            events: 0,
            requests: 1_000,
            names: 0,
            gossip: Gossip::default(),
            nodes: BTreeMap::new(),
            checks: Checks::default(),
            defect,
            tally: Tally::default(),
        };
        for id in 1..=NODES {
            world.admit(NodeId(id));
        }
        world.log.elect(Some(NodeId(1)), || true);
        for _ in 0..3 {
            let made = world.new_network();
            world.propose_at_leader(made);
        }
        world.after(10_000, Event::Disturb);
        world
    }

    pub(super) fn run(&mut self, seconds: u64) -> Result<(), Violation> {
        let end = self.now + seconds * 1_000;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > end {
                return Ok(());
            }
            self.now = at;
            self.handle(event)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Act(id) => self.act(id),
            Event::Tick(id) => self.tick(id),
            Event::Hear { to, owner } => {
                if self.reach(to, owner) {
                    self.gossip.sync(to, owner);
                }
                Ok(())
            }
            Event::Arrive { from, command } => {
                self.arrive(from, command);
                Ok(())
            }
            Event::Commit => self.commit(),
            Event::Answer {
                to,
                life,
                request,
                applied,
            } => self.answer((to, life), request, &applied),
            Event::Ask {
                node,
                life,
                network,
                request,
            } => {
                self.ask((node, life), network, request);
                Ok(())
            }
            Event::Stop(id) => {
                self.stop(id);
                Ok(())
            }
            Event::Disturb => {
                self.disturb();
                Ok(())
            }
        }
    }

    fn act(&mut self, id: NodeId) -> Result<(), Violation> {
        let pause = self.rng.random_range(500..12_000);
        let Some(node) = self.nodes.get(&id) else {
            return Ok(());
        };
        let networks: Vec<NetworkId> = node.networks.keys().copied().collect();
        let endpoints: Vec<(NetworkId, IpAddr)> = node.endpoints.iter().copied().collect();
        self.after(pause, Event::Act(id));
        if networks.is_empty() {
            return Ok(());
        }
        let network = networks[self.rng.random_range(0..networks.len())];
        let is_full = endpoints.len() >= ENDPOINTS_MAX;
        if !endpoints.is_empty() && (is_full || self.rng.random_bool(0.45)) {
            let at = endpoints[self.rng.random_range(0..endpoints.len())];
            self.remove(id, at);
            return Ok(());
        }
        let wish = match self.rng.random_bool(0.35) {
            true => Wish::Named(self.some_address(id, network)),
            false => Wish::Any,
        };
        self.begin(id, network, wish)
    }

    /// Gives back what everybody has heard is free, and blocks that nobody needs.
    fn tick(&mut self, id: NodeId) -> Result<(), Violation> {
        let now = self.instant();
        let is_heard = self.defect == Some(Defect::SkipBarrier) || self.is_heard(id);
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let mut back: Vec<(NetworkId, Prefix)> = Vec::new();
        for (network, desk) in &mut node.desks {
            let leaving = match is_heard {
                true => std::mem::take(&mut desk.leaving),
                false => Vec::new(),
            };
            let leases = leaving.into_iter().chain(desk.hand.idle(now));
            back.extend(leases.map(|lease| (*network, lease.prefix)));
        }
        self.after(1_000, Event::Tick(id));
        let others: Vec<NodeId> = self.nodes.keys().copied().collect();
        for other in others
            .into_iter()
            .filter(|other| self.reach(id, *other))
            .collect::<Vec<_>>()
        {
            self.gossip.sync(id, other);
        }
        if self.log.leader.is_some_and(|leader| self.reach(id, leader)) {
            self.hear_networks(id);
        }
        for (network, prefix) in back {
            self.begin(id, network, Wish::Return(prefix))?;
        }
        Ok(())
    }

    fn begin(&mut self, id: NodeId, network: NetworkId, wish: Wish) -> Result<(), Violation> {
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let desk = node.desks.get(&network);
        if desk.is_some_and(|desk| desk.operation.is_some()) {
            return Ok(());
        }
        let step = node.step(network, wish, now);
        self.go_on(id, network, wish, step)
    }

    fn go_on(
        &mut self,
        id: NodeId,
        network: NetworkId,
        wish: Wish,
        step: Step,
    ) -> Result<(), Violation> {
        match step {
            Step::Over => Ok(()),
            Step::Address(address, is_cut_short) => {
                let is_named = matches!(wish, Wish::Named(_));
                self.create(id, (network, address), (is_named, is_cut_short))
            }
            Step::Ask(action) => {
                let action = match self.defect {
                    Some(Defect::ReturnUnnumbered) => unnumbered(action),
                    Some(_) | None => action,
                };
                let command = self.command(action);
                let deadline = self.now + PROPOSE_MILLIS;
                let request = command.request;
                let Some(node) = self.nodes.get_mut(&id) else {
                    return Ok(());
                };
                let life = node.life;
                let desk = node.desks.entry(network).or_default();
                desk.operation = Some(Operation {
                    wish,
                    command,
                    deadline,
                });
                self.after(
                    0,
                    Event::Ask {
                        node: id,
                        life,
                        network,
                        request,
                    },
                );
                Ok(())
            }
        }
    }

    fn create(
        &mut self,
        id: NodeId,
        at: (NetworkId, IpAddr),
        (is_named, is_cut_short): (bool, bool),
    ) -> Result<(), Violation> {
        self.checks.holders.take(at, id)?;
        let rested = self.checks.rested.take(at, self.instant());
        if !is_named && !is_cut_short {
            Rested::check(at, rested)?;
        }
        self.check_heard(id, at)?;
        let is_isolated = !self.log.leader.is_some_and(|leader| self.reach(id, leader));
        self.tally.reused += u64::from(rested.is_some());
        self.tally.cut_short += u64::from(is_cut_short);
        self.tally.named += u64::from(is_named);
        self.tally.dynamic += u64::from(!is_named);
        self.tally.isolated += u64::from(is_isolated);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.endpoints.insert(at);
        }
        self.write(id, at, true);
        Ok(())
    }

    fn remove(&mut self, id: NodeId, at: (NetworkId, IpAddr)) {
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.endpoints.remove(&at);
        // What a node that was shut out does rests from then: that it ran on must not matter.
        let since = node.shut_out.unwrap_or(now);
        if let Some(desk) = node.desks.get_mut(&at.0) {
            desk.hand.release(at.1, now);
            desk.leaving.extend(desk.hand.single(at.1));
        }
        self.tally.removed += 1;
        self.checks.holders.release(at);
        self.checks.rested.release(at, since);
        self.write(id, at, false);
    }

    /// Writes, and has everybody within reach hear of it soon.
    fn write(&mut self, id: NodeId, at: (NetworkId, IpAddr), is_live: bool) {
        self.gossip.write(id, Write { at, is_live });
        let others: Vec<NodeId> = self.nodes.keys().copied().collect();
        for to in others {
            // What is lost comes with the next tick.
            if self.rng.random_bool(0.3) {
                continue;
            }
            let delay = self.rng.random_range(1..200);
            self.after(delay, Event::Hear { to, owner: id });
        }
    }

    fn ask(&mut self, (id, life): (NodeId, u64), network: NetworkId, request: u128) {
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.life == life) else {
            return;
        };
        let operation = node
            .desks
            .get(&network)
            .and_then(|desk| desk.operation.clone());
        let Some(operation) = operation.filter(|asked| asked.command.request == request) else {
            return;
        };
        if self.now >= operation.deadline {
            self.tally.unanswered += 1;
            let is_used_on = self.defect == Some(Defect::UseUnanswered);
            if let (true, Wish::Return(prefix)) = (is_used_on, operation.wish)
                && let Some(record) = node.networks.get(&network)
                && let Some(subnet) = record.subnets.first()
            {
                let lease = Lease {
                    prefix,
                    number: u64::MAX,
                };
                let fresh = Fresh::Yes(now);
                let desk = node.desks.entry(network).or_default();
                desk.hand.adopt(lease, subnet, [], fresh);
            }
            node.unanswered(network);
            let is_isolated = !self.log.leader.is_some_and(|leader| self.reach(id, leader));
            self.tally.refused_isolated += u64::from(is_isolated);
            return;
        }
        let command = operation.command;
        let copies = if self.rng.random_bool(0.05) { 2 } else { 1 };
        for _ in 0..copies {
            // Some are held up, so long that whoever asked has given up.
            let delay = match self.rng.random_range(0..20) {
                0 => self.rng.random_range(1_000..60_000),
                1 => continue,
                _ => self.rng.random_range(1..30),
            };
            self.after(
                delay,
                Event::Arrive {
                    from: id,
                    command: command.clone(),
                },
            );
        }
        self.after(
            RETRY_MILLIS,
            Event::Ask {
                node: id,
                life,
                network,
                request,
            },
        );
    }

    fn arrive(&mut self, from: NodeId, mut command: Command) {
        let Some(leader) = self.log.leader else {
            return;
        };
        // It may have been on its way to the leader when its sender was cut off.
        if !self.reach(from, leader) && self.rng.random_bool(0.9) {
            return;
        }
        command.at = Hlc(self.now << 16);
        self.log.propose(from, command);
        let delay = self.rng.random_range(1..20);
        self.after(delay, Event::Commit);
    }

    fn commit(&mut self) -> Result<(), Violation> {
        if self.log.leader.is_none() {
            return Ok(());
        }
        let (before, dots) = (self.log.state.networks().len(), self.log.state.last_dot());
        for (from, command, applied, cut_short) in self.log.commit() {
            self.tally.applied += 1;
            if let Some((network, prefix)) = cut_short {
                self.tally.cut_short += 1;
                self.checks.rested.excuse(network, prefix);
            }
            let is_old = self.log.state.last_dot() == dots && applied.is_ok();
            self.tally.repeated += u64::from(is_old);
            match (&command.action, &applied) {
                (Action::ReturnLease { .. } | Action::ReturnBlock { .. }, Ok(_)) => {
                    self.tally.returned += 1;
                }
                (_, Err(AllocatorError::StaleLease { .. })) => self.tally.stale += 1,
                _ => {}
            }
            let Some(node) = self.nodes.get(&from) else {
                continue;
            };
            let (life, request) = (node.life, command.request);
            if self.rng.random_bool(0.9) && of(&command.action).is_some() {
                let to = from;
                let delay = self.rng.random_range(1..30);
                self.after(
                    delay,
                    Event::Answer {
                        to,
                        life,
                        request,
                        applied,
                    },
                );
            }
        }
        let networks = self.log.state.networks().len();
        self.tally.networks += networks.saturating_sub(before) as u64;
        check::vnis(&self.log.state)?;
        self.check_leases()
    }

    fn answer(
        &mut self,
        (id, life): (NodeId, u64),
        request: u128,
        applied: &Applied,
    ) -> Result<(), Violation> {
        let (now, defect) = (self.instant(), self.defect);
        let is_reached = self.log.leader.is_some_and(|leader| self.reach(id, leader));
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.life == life) else {
            return Ok(());
        };
        let waits = |operation: &Operation| operation.command.request == request;
        let mut desks = node.desks.iter_mut();
        let asked = desks.find(|(_, desk)| desk.operation.as_ref().is_some_and(waits));
        let Some((network, desk)) = asked.filter(|_| is_reached) else {
            return Ok(());
        };
        let network = *network;
        let Some(operation) = desk.operation.take() else {
            return Ok(());
        };
        let Some(record) = node.networks.get(&network).cloned() else {
            return Ok(());
        };
        let step = node.answered(&record, operation.wish, applied, (now, defect));
        self.go_on(id, network, operation.wish, step)?;
        self.check_leases()
    }

    pub(super) fn admit(&mut self, id: NodeId) {
        let name = Name::new(&format!("n{id}")).expect("a short name");
        let key = [7; 32];
        self.propose_at_leader(Action::AdmitNode {
            node: id,
            name,
            key,
        });
        self.nodes.insert(id, Node::new(id));
        let first = self.rng.random_range(0..2_000);
        self.after(first, Event::Act(id));
        self.after(first, Event::Tick(id));
    }

    /// Somebody beside the leader wants something.
    pub(super) fn propose_at_leader(&mut self, action: Action) {
        let mut command = self.command(action);
        command.at = Hlc(self.now << 16);
        self.log.propose(NodeId(0), command);
        self.after(5, Event::Commit);
    }

    pub(super) fn new_network(&mut self) -> Action {
        self.names += 1;
        let length = self.rng.random_range(24..=28);
        let size = format!("0.0.0.0/{length}").parse().map(Prefix).ok();
        let subnet = SubnetRequest {
            prefix: size,
            gateway: None,
        };
        Action::AllocateNetwork(NetworkWish {
            name: Name::new(&format!("net{}", self.names)).expect("a short name"),
            driver: Name::new("overlay").expect("a short name"),
            options: BTreeMap::new(),
            subnets: vec![SubnetWish::from(subnet)],
            vxlan: true,
            v6: false,
            avoid: Vec::new(),
        })
    }

    fn some_address(&mut self, id: NodeId, network: NetworkId) -> IpAddr {
        let record = self
            .nodes
            .get(&id)
            .and_then(|node| node.networks.get(&network));
        let subnet = record.and_then(|record| record.subnets.first());
        let hosts: Vec<IpAddr> = subnet.map_or_else(Vec::new, |s| s.prefix.0.hosts().collect());
        // Few, so that they are asked for again and again.
        let some = hosts.len().min(6);
        match some {
            0 => IpAddr::from([0, 0, 0, 0]),
            some => hosts[hosts.len() - 1 - self.rng.random_range(0..some)],
        }
    }

    fn command(&mut self, action: Action) -> Command {
        self.requests += 1;
        Command {
            at: Hlc::default(),
            request: self.requests,
            action,
        }
    }

    pub(super) fn reach(&self, a: NodeId, b: NodeId) -> bool {
        let part = |id| self.nodes.get(&id).map(|node| node.part.0);
        part(a).is_some() && part(a) == part(b)
    }

    pub(super) fn after(&mut self, millis: u64, event: Event) {
        self.events += 1;
        self.queue.insert((self.now + millis, self.events), event);
    }

    pub(super) fn instant(&self) -> Instant {
        Instant::from_start(Duration::from_millis(self.now))
    }
}

fn founded(rng: &mut StdRng) -> Allocator {
    let mut state = Allocator::default();
    let founded = state.apply(&Command {
        at: Hlc(1),
        request: 1,
        action: Action::Genesis {
            cluster: ClusterId(7),
            ca_cert_der: Vec::new(),
            ca_key_der: Secret(Vec::new()),
            keyring: Keyring::new(KeyId(1), ClusterKey::random(rng)),
            token_secret: TokenSecret([0; 16]),
            founder: NodeId(99),
            name: Name::new("founder").expect("a short name"),
        },
    });
    assert_eq!(founded, Ok(Outcome::Done));
    state.take_dots();
    state
}
