//! Watch: what a change costs, and what each watcher costs.

use benches::processor::ProcessorTime;
use criterion::{BatchSize, Throughput};
use weft::core::{
    model::{Hlc, Key, NetworkId, NodeId, TableName, Value},
    netdb::{Change, ChangeKind},
    watch::{Filter, HISTORY_MAX, History},
};

const CHANGES: u32 = 1_000;

fn main() {
    let mut criterion = ProcessorTime::criterion();
    let mut group = criterion.benchmark_group("watch");
    group.throughput(Throughput::Elements(u64::from(CHANGES)));
    let changes: Vec<Change> = (0..CHANGES).map(change).collect();
    group.bench_function("record 1000 changes", |bencher| {
        let mut history = full();
        let record = |changes: Vec<Change>| {
            for change in changes {
                history.record(change);
            }
        };
        bencher.iter_batched(|| changes.clone(), record, BatchSize::SmallInput);
    });
    let history = full();
    let after = history.revision() - u64::from(CHANGES);
    let all = Filter::default();
    let one_network = Filter {
        network: Some(NetworkId(1)),
        ..Filter::default()
    };
    let one_key = Filter {
        prefix: 7u32.to_be_bytes().to_vec(),
        ..one_network.clone()
    };
    for (name, filter) in [
        ("hear 1000 changes, all", all),
        ("hear 1000 changes, one network of ten", one_network),
        ("hear 1000 changes, one key", one_key),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| {
                history
                    .since(after, &filter, usize::MAX)
                    .expect("the history is longer")
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

/// A history at its bound.
fn full() -> History {
    let mut history = History::default();
    for n in 0..u32::try_from(HISTORY_MAX).expect("it is small") {
        history.record(change(n));
    }
    history
}

fn change(n: u32) -> Change {
    Change {
        kind: ChangeKind::Created,
        network: NetworkId(n % 10),
        table: TableName::new("overlay_peers").expect("within the limits"),
        key: Key::new(n.to_be_bytes().to_vec()).expect("within the limits"),
        value: Some(Value::new(vec![1; 32]).expect("within the limits")),
        previous: None,
        owner: NodeId(1),
        written: Hlc::default(),
        ours: false,
    }
}
