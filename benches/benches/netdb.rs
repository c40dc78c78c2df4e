//! The network DB: taking what others push, own writes, lists, and what a newcomer is sent.

use std::time::Duration;

use benches::{
    corpus::{
        APP, Corpus, READER, Snapshot, WRITER, catch_up, datagrams, db, node, now, settle, take,
    },
    processor::ProcessorTime,
    work::{NODES, pass_on, put_one},
};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use weft::core::{model::NodeId, netdb::NetDb, node::Node};

/// How many dots one measured run takes: enough that the entries do not fit into a core's own cache.
const DOTS: usize = 100_000;
/// What a reader holds then: every entry, and the attachment of both nodes.
const HELD: usize = DOTS + 2;

fn main() {
    let mut criterion = ProcessorTime::criterion()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    apply(&mut criterion);
    write(&mut criterion);
    read(&mut criterion);
    sync(&mut criterion);
    criterion.final_summary();
}

fn apply(criterion: &mut Criterion<ProcessorTime>) {
    let corpus = Corpus::new(DOTS);
    let mut writer = db(WRITER, &[READER]);
    let created = corpus.write(&mut writer, READER);
    let updated = corpus.rewritten().write(&mut writer, READER);
    let eight: Vec<NodeId> = (1..=NODES)
        .map(NodeId)
        .filter(|node| *node != READER)
        .collect();

    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(DOTS as u64));
    apply_pushes(&mut group, "new entries", &created, || {
        db(READER, &[WRITER])
    });
    apply_pushes(&mut group, "updates", &updated, || {
        let mut reader = db(READER, &[WRITER]);
        take(&mut reader, &created);
        reader
    });
    apply_pushes(&mut group, "known already", &created, || {
        let mut reader = db(READER, &[WRITER]);
        take(&mut reader, &created);
        reader
    });
    group.bench_function("new entries, and push them on among 8 nodes", |bencher| {
        let forward = |mut reader: NetDb| {
            pass_on(&mut reader, &created);
            reader
        };
        bencher.iter_batched(|| db(READER, &eight), forward, BatchSize::LargeInput);
    });
    let sealed = datagrams(&corpus);
    group.bench_function("new entries, from sealed datagrams", |bencher| {
        let open = |mut reader: Node| {
            for datagram in &sealed {
                reader
                    .handle_datagram(now(), datagram)
                    .expect("it is sound");
            }
            assert_eq!(reader.held(), HELD, "every dot has arrived");
            reader
        };
        bencher.iter_batched(|| node(READER, &[WRITER]), open, BatchSize::LargeInput);
    });
    group.finish();
}

fn apply_pushes(
    group: &mut BenchmarkGroup<'_, ProcessorTime>,
    name: &str,
    pushes: &[Vec<u8>],
    reader: impl Fn() -> NetDb,
) {
    group.bench_function(name, |bencher| {
        let run = |mut reader: NetDb| {
            take(&mut reader, pushes);
            reader
        };
        bencher.iter_batched(&reader, run, BatchSize::LargeInput);
    });
}

fn write(criterion: &mut Criterion<ProcessorTime>) {
    let corpus = Corpus::new(DOTS);
    let mut group = criterion.benchmark_group("put");
    group.sample_size(100);
    for (name, others) in [
        ("alone", &[][..]),
        ("and push it to two others", &[READER, NodeId(3)][..]),
    ] {
        let mut writer = db(WRITER, others);
        corpus.write(&mut writer, READER);
        settle(&mut writer);
        let (mut count, mut time) = (0, now());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                time = put_one(&mut writer, time, &corpus, count);
                count += 1;
            });
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion<ProcessorTime>) {
    let corpus = Corpus::new(DOTS);
    let mut writer = db(WRITER, &[]);
    corpus.write(&mut writer, READER);
    let mut group = criterion.benchmark_group("read");
    let mut next = (0..DOTS).cycle();
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            let (key, _) = &corpus.entries[next.next().expect("it cycles")];
            writer.get(APP, corpus.table.as_str(), key.as_bytes())
        });
    });
    group.throughput(Throughput::Elements(DOTS as u64));
    group.bench_function("list", |bencher| {
        bencher.iter_with_large_drop(|| writer.list(APP, Some(&corpus.table)));
    });
    group.finish();
}

fn sync(criterion: &mut Criterion<ProcessorTime>) {
    let mut writer = db(WRITER, &[READER]);
    Corpus::new(DOTS).write(&mut writer, READER);
    settle(&mut writer);
    let snapshot = Snapshot::of(&mut writer);
    let mut group = criterion.benchmark_group("snapshot");
    group.throughput(Throughput::Elements(DOTS as u64));
    group.bench_function("made, page by page", |bencher| {
        bencher.iter(|| snapshot.send(&mut writer));
    });
    group.bench_function("taken, page by page", |bencher| {
        let run = |mut reader: NetDb| {
            snapshot.take(&mut reader);
            reader
        };
        bencher.iter_batched(|| db(READER, &[WRITER]), run, BatchSize::LargeInput);
    });
    group.bench_function("asked for, made and taken: both sides", |bencher| {
        let run = |mut reader: NetDb| {
            catch_up(&mut writer, &mut reader);
            reader
        };
        bencher.iter_batched(|| db(READER, &[WRITER]), run, BatchSize::LargeInput);
    });
    group.finish();
}
