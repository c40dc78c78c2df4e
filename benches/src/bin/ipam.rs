//! What handing out addresses takes: processor time and memory, beside what each may take.
#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::{alloc::System, collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context, ensure};
use benches::{corpus, processor::ProcessorTime};
use clap::Parser;
use criterion::measurement::Measurement;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use weft::core::{
    allocator::{
        Action, Allocator, Command, NetworkWish, Outcome, Secret, SubnetRequest, SubnetWish,
        TokenSecret,
    },
    ipam::{Block, Fresh, Hand, Lease},
    model::{ClusterId, Family, Hlc, Instant, Name, NetworkId, NodeId, Prefix, Subnet},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What each may take.
const ADDRESS_MAX: Duration = Duration::from_micros(5);
const POOLS_MAX: Duration = Duration::from_secs(1);
const SUBNET_BYTES_MAX: isize = 2 * 1024 * 1024;
const SNAPSHOT_MAX: Duration = Duration::from_millis(300);

const POOLS: usize = 16_384;
const NETWORKS: u32 = 10_000;
const NODES: u64 = 20;

/// Measures what handing out addresses takes
#[derive(Parser)]
struct Args {
    /// Exit 1 if anything takes more than it may
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let address = address_from_a_block()?;
    let full = address_from_a_full_subnet()?;
    let pools = pools()?;
    let (in_use, resting) = memory_of_a_subnet()?;
    let (encoded, decoded, len) = snapshot()?;
    println!("an address from a block:              {address:?} (at most {ADDRESS_MAX:?})");
    println!("the one address of a full /16:        {full:?} (at most {ADDRESS_MAX:?})");
    println!("{POOLS} networks, a subnet each:      {pools:?} (at most {POOLS_MAX:?})");
    println!(
        "a /16, all in use / all resting:      {in_use} B / {resting} B (at most {SUBNET_BYTES_MAX} B)"
    );
    println!(
        "a snapshot of {NETWORKS} networks and {} leases: {encoded:?} to write, {decoded:?} to read, {len} B (at most {SNAPSHOT_MAX:?})",
        u64::from(NETWORKS) * NODES
    );
    if args.check {
        ensure!(
            address <= ADDRESS_MAX && full <= ADDRESS_MAX,
            "addresses are slow"
        );
        ensure!(pools <= POOLS_MAX, "pools are slow");
        ensure!(
            in_use.max(resting) <= SUBNET_BYTES_MAX,
            "addresses are large"
        );
        ensure!(encoded <= SNAPSHOT_MAX, "a snapshot is slow");
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Duration)> {
    let begun = ProcessorTime.start();
    let done = work()?;
    Ok((done, ProcessorTime.end(begun)))
}

/// As a node does it: hand out, and give back what it had for longest.
fn address_from_a_block() -> anyhow::Result<Duration> {
    const ROUNDS: u32 = 100_000;
    let subnet = Subnet {
        prefix: prefix("10.0.0.0/16")?,
        gateway: "10.0.0.1".parse()?,
        vni: None,
    };
    let mut hand = Hand::default();
    for (number, net) in (1..).zip(["10.0.1.0/28", "10.0.1.32/27", "10.0.1.64/27"]) {
        let lease = Lease {
            prefix: prefix(net)?,
            number,
        };
        hand.adopt(lease, &subnet, [], Fresh::Yes(Instant::default()));
    }
    let mut had: std::collections::VecDeque<IpAddr> = std::collections::VecDeque::new();
    let (_, took) = timed(|| {
        for round in 0..u64::from(ROUNDS) {
            // A container every ten seconds.
            let now = Instant::from_start(Duration::from_secs(round * 10));
            had.push_back(hand.take(Family::V4, now)?);
            if had.len() > 30 {
                let oldest = had.pop_front().context("there are thirty")?;
                hand.release(oldest, now);
            }
        }
        Ok(())
    })?;
    Ok(took / ROUNDS)
}

fn address_from_a_full_subnet() -> anyhow::Result<Duration> {
    const ROUNDS: u32 = 10_000;
    let mut block = full()?;
    let address = "10.0.77.77".parse()?;
    let now = Instant::default();
    let (_, took) = timed(|| {
        for _ in 0..ROUNDS {
            block.release(address, now);
            block.take(now)?;
        }
        Ok(())
    })?;
    Ok(took / ROUNDS)
}

fn pools() -> anyhow::Result<Duration> {
    let mut state = State::founded()?;
    let wishes: Vec<Action> = (0..POOLS)
        .map(|n| network(n, None))
        .collect::<anyhow::Result<_>>()?;
    let (_, took) = timed(|| {
        for wish in wishes {
            state.apply(wish)?;
        }
        Ok(())
    })?;
    Ok(took)
}

fn memory_of_a_subnet() -> anyhow::Result<(isize, isize)> {
    let region = Region::new(ALLOCATOR);
    let mut block = full()?;
    let held = |region: &Region<'_, System>| {
        let change = region.change();
        let (more, less) = (change.bytes_allocated, change.bytes_deallocated);
        isize::try_from(more).and_then(|more| Ok(more - isize::try_from(less)?))
    };
    let in_use = held(&region)?;
    let all: Vec<IpAddr> = block.prefix().0.hosts().collect();
    let list = isize::try_from(all.capacity() * size_of::<IpAddr>())?;
    for address in &all {
        block.release(*address, Instant::default());
    }
    Ok((in_use, held(&region)? - list))
}

fn full() -> anyhow::Result<Block> {
    let net = prefix("10.0.0.0/16")?;
    let mut block = Block::new(net, net, None);
    while block.take(Instant::default()).is_ok() {}
    Ok(block)
}

fn snapshot() -> anyhow::Result<(Duration, Duration, usize)> {
    let mut state = State::founded()?;
    for node in 2..=NODES {
        state.apply(Action::AdmitNode {
            name: Name::new(&format!("n{node}"))?,
            node: NodeId(node),
            key: [7; 32],
        })?;
    }
    for n in 0..NETWORKS {
        let wish = network(n as usize, Some(prefix("0.0.0.0/22")?))?;
        let Outcome::Network(record) = state.apply(wish)? else {
            continue;
        };
        for node in 1..=NODES {
            let (network, node): (NetworkId, NodeId) = (record.id, NodeId(node));
            state.apply(Action::GrowBlocks { network, node })?;
        }
    }
    let (bytes, encoded) = timed(|| Ok(state.allocator.snapshot()))?;
    let (again, decoded) = timed(|| Ok(Allocator::restore(&bytes)?))?;
    ensure!(again == state.allocator, "a snapshot is the state");
    Ok((encoded, decoded, bytes.len()))
}

#[derive(Default)]
struct State {
    allocator: Allocator,
    requests: u64,
}

impl State {
    fn founded() -> anyhow::Result<Self> {
        let mut state = Self::default();
        state.apply(Action::Genesis {
            cluster: ClusterId(1),
            ca_cert_der: vec![1; 400],
            ca_key_der: Secret(vec![2; 120]),
            keyring: corpus::keyring(),
            token_secret: TokenSecret([3; 16]),
            founder: NodeId(1),
            name: Name::new("n1")?,
        })?;
        Ok(state)
    }

    fn apply(&mut self, action: Action) -> anyhow::Result<Outcome> {
        self.requests += 1;
        let outcome = self.allocator.apply(&Command {
            at: Hlc(self.requests),
            request: u128::from(self.requests),
            action,
        });
        self.allocator.take_dots();
        Ok(outcome?)
    }
}

/// Returns the wish for a network of one subnet: of the default pool's size, or of this one.
fn network(n: usize, size: Option<Prefix>) -> anyhow::Result<Action> {
    let subnet = SubnetRequest {
        prefix: size,
        gateway: None,
    };
    Ok(Action::AllocateNetwork(NetworkWish {
        name: Name::new(&format!("network{n}"))?,
        driver: Name::new("overlay")?,
        options: BTreeMap::new(),
        subnets: vec![SubnetWish::from(subnet)],
        vxlan: true,
        v6: false,
        avoid: Vec::new(),
    }))
}

fn prefix(text: &str) -> anyhow::Result<Prefix> {
    Ok(Prefix(text.parse()?))
}
