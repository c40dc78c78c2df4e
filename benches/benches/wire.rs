//! Wire: sealing and opening a datagram, packing and reading records.

use benches::processor::ProcessorTime;
use criterion::{BatchSize, Criterion, Throughput};
use std::hint::black_box;
use weft::core::{
    model::{Boot, ClusterId, NodeId},
    wire::{
        PAYLOAD_MAX,
        envelope::{Opener, Sealer},
        record::{Batch, RecordKind, records},
    },
};

const CLUSTER: ClusterId = ClusterId(1);
const SENDER: NodeId = NodeId(1);
const RECEIVER: NodeId = NodeId(2);
/// How many datagrams are opened between two set-ups.
const DATAGRAMS: u64 = 1_000;

fn main() {
    let mut criterion = ProcessorTime::criterion();
    envelope(&mut criterion);
    batch(&mut criterion);
    criterion.final_summary();
}

fn envelope(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = criterion.benchmark_group("envelope");
    for len in [100, 1_300] {
        let payload = benches::corpus::payload(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("seal and open {len} B"), |bencher| {
            let (mut sealer, mut opener) = (sealer(), opener());
            bencher.iter(|| {
                let datagram = sealer.seal(RECEIVER, &payload).expect("it fits");
                opener.open(&datagram).expect("it is sound")
            });
        });
        group.bench_function(format!("seal {len} B"), |bencher| {
            let mut sealer = sealer();
            bencher.iter(|| sealer.seal(RECEIVER, &payload).expect("it fits"));
        });
    }
    let mut sealer = sealer();
    let payload = benches::corpus::payload(1_300);
    let mut forged = sealer.seal(RECEIVER, &payload).expect("it fits").to_vec();
    forged[700] ^= 1;
    group.bench_function("refuse a forged one of 1300 B", |bencher| {
        let mut opener = opener();
        bencher.iter(|| opener.open(black_box(&forged)).is_err());
    });
    group.finish();
}

fn batch(criterion: &mut Criterion<ProcessorTime>) {
    let body = benches::corpus::payload(100);
    let fill = || {
        let mut batch = Batch::new();
        while batch.push(RecordKind::PUSH, &body).is_ok() {}
        batch
    };
    let full = fill();
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements((PAYLOAD_MAX / 103) as u64));
    group.bench_function("pack a datagram of 100 B records", |bencher| {
        bencher.iter(fill);
    });
    group.bench_function("read a datagram of 100 B records", |bencher| {
        bencher.iter(|| {
            records(black_box(full.as_bytes()))
                .filter(Result::is_ok)
                .count()
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("datagram");
    group.throughput(Throughput::Elements(DATAGRAMS));
    group.bench_function("open 1300 B in order", |bencher| {
        let mut sealer = sealer();
        let payload = benches::corpus::payload(1_300);
        let seal = || {
            let sealed = (0..DATAGRAMS).map(|_| sealer.seal(RECEIVER, &payload).expect("it fits"));
            (opener(), sealed.collect::<Vec<_>>())
        };
        bencher.iter_batched_ref(
            seal,
            |(opener, datagrams)| {
                for datagram in datagrams {
                    black_box(opener.open(datagram).expect("it is sound"));
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn sealer() -> Sealer {
    Sealer::new(CLUSTER, SENDER, Boot(1), &benches::corpus::keyring())
}

fn opener() -> Opener {
    Opener::new(CLUSTER, RECEIVER, benches::corpus::keyring())
}
