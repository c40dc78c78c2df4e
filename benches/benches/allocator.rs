//! The allocator: what the leader's commands cost to apply, on every voter.

use std::collections::BTreeMap;

use benches::processor::ProcessorTime;
use criterion::{BatchSize, Criterion, Throughput};
use weft::core::{
    allocator::{
        Action, Allocator, Command, NetworkWish, Outcome, Secret, SubnetRequest, SubnetWish,
        TokenSecret,
    },
    model::{ClusterId, Hlc, Name, NetworkId, NodeId, Prefix},
};

/// How many networks there are before, and how many nodes.
const NETWORKS: u32 = 1_000;
const NODES: u64 = 1_000;
/// How many commands one measured run applies.
const COMMANDS: u32 = 100;

fn main() {
    let mut criterion = ProcessorTime::criterion();
    let mut state = State::founded();
    for n in 0..NETWORKS {
        state.create(n);
    }
    let wide = state.create_wide();
    for node in 2..=NODES {
        state.admit(node);
        state.lease(wide, node);
    }
    apply(&mut criterion, &state, wide);
    snapshot(&mut criterion, &state.allocator);
    criterion.final_summary();
}

fn apply(criterion: &mut Criterion<ProcessorTime>, state: &State, wide: NetworkId) {
    let mut group = criterion.benchmark_group("allocator");
    group.throughput(Throughput::Elements(u64::from(COMMANDS)));
    group.bench_function("create 100 networks beside 1000", |bencher| {
        let create = |state: &mut State| {
            for n in NETWORKS..NETWORKS + COMMANDS {
                state.create(n);
            }
        };
        bencher.iter_batched_ref(|| state.clone(), create, BatchSize::LargeInput);
    });
    group.bench_function("lease 100 blocks beside 1000", |bencher| {
        let lease = |state: &mut State| {
            for node in 1..=u64::from(COMMANDS) {
                state.lease(wide, node);
            }
        };
        bencher.iter_batched_ref(|| state.clone(), lease, BatchSize::LargeInput);
    });
    group.finish();
}

fn snapshot(criterion: &mut Criterion<ProcessorTime>, allocator: &Allocator) {
    let mut group = criterion.benchmark_group("allocator snapshot");
    let bytes = allocator.snapshot();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter_with_large_drop(|| allocator.snapshot());
    });
    group.bench_function("decode", |bencher| {
        bencher.iter_with_large_drop(|| Allocator::restore(&bytes).expect("it was just made"));
    });
    group.finish();
}

/// An allocator, and a count of requests so that each is new.
#[derive(Clone, Default)]
struct State {
    allocator: Allocator,
    requests: u64,
}

impl State {
    fn founded() -> Self {
        let mut state = Self::default();
        state.apply(Action::Genesis {
            cluster: ClusterId(1),
            ca_cert_der: vec![1; 400],
            ca_key_der: Secret(vec![2; 120]),
            keyring: benches::corpus::keyring(),
            token_secret: TokenSecret([3; 16]),
            founder: NodeId(1),
            name: name("n1"),
        });
        state
    }

    fn create(&mut self, n: u32) {
        self.create_with(name(&format!("network{n}")), Vec::new());
    }

    fn create_wide(&mut self) -> NetworkId {
        let prefix = "172.16.0.0/12".parse().expect("a prefix");
        let wide = SubnetRequest {
            prefix: Some(Prefix(prefix)),
            gateway: None,
        };
        self.create_with(name("wide"), vec![wide])
    }

    fn create_with(&mut self, name: Name, subnets: Vec<SubnetRequest>) -> NetworkId {
        let outcome = self.apply(Action::AllocateNetwork(NetworkWish {
            name,
            driver: Name::new("overlay").expect("within the limits"),
            options: BTreeMap::new(),
            subnets: subnets.into_iter().map(SubnetWish::from).collect(),
            vxlan: true,
            v6: false,
            avoid: Vec::new(),
        }));
        match outcome {
            Outcome::Network(record) => record.id,
            Outcome::Done
            | Outcome::Block(_)
            | Outcome::Key(_)
            | Outcome::Leased(..)
            | Outcome::Leases { .. } => {
                unreachable!("a network was asked for")
            }
        }
    }

    fn admit(&mut self, node: u64) {
        let name = name(&format!("n{node}"));
        let node = NodeId(node);
        let key = [7; 32];
        self.apply(Action::AdmitNode { node, name, key });
    }

    fn lease(&mut self, network: NetworkId, node: u64) {
        let node = NodeId(node);
        self.apply(Action::GrowBlocks { network, node });
    }

    fn apply(&mut self, action: Action) -> Outcome {
        self.requests += 1;
        let command = Command {
            at: Hlc(self.requests),
            request: u128::from(self.requests),
            action,
        };
        let outcome = self.allocator.apply(&command).expect("it can be granted");
        self.allocator.take_dots();
        outcome
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("within the limits")
}
