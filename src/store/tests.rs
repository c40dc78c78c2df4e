//! The store as its callers see it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use rand::SeedableRng;
use tempfile::TempDir;

use super::{
    faults::{FaultyDisk, Kept},
    *,
};
use crate::core::{
    model::{ClusterId, EndpointRecord, Mac, Name, NodeId},
    wire::keyring::{AgreedRing, ClusterKey, KeyId, Keyring},
};

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join(FILE_NAME)
}

fn identity() -> NodeIdentity {
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    NodeIdentity {
        node: NodeId(7),
        name: Name::new("n7").unwrap(),
        cluster: ClusterId(9),
        credentials: vec![1, 2, 3],
        ring: AgreedRing {
            version: 0,
            keys: Keyring::new(KeyId(1), ClusterKey::random(&mut rng)),
        },
    }
}

fn entry(key: &str, value: &[u8]) -> TableEntry {
    TableEntry {
        table: TableName::new("t").unwrap(),
        key: Key::new(key.as_bytes().to_vec()).unwrap(),
        value: Value::new(value.to_vec()).unwrap(),
    }
}

fn endpoint(id: u128, joined: bool) -> StoredEndpoint {
    StoredEndpoint {
        record: EndpointRecord {
            id: EndpointId(id),
            network: NetworkId(1),
            name: Name::new("web").unwrap(),
            address: None,
            second: None,
            mac: Mac([2, 0, 0, 0, 0, 1]),
        },
        joined,
        entries: vec![entry("k", b"v")],
    }
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let directory = directory();
    let store = Store::open(directory.path()).unwrap();
    store.set_identity(&identity()).unwrap();
    store.put_endpoint(&endpoint(1, false)).unwrap();
    store.put_endpoint(&endpoint(2, true)).unwrap();
    store.put_endpoint(&endpoint(1, true)).unwrap();
    store.remove_endpoint(EndpointId(2)).unwrap();
    store.put_entry(NetworkId(3), &entry("a", b"")).unwrap();
    store.put_entry(NetworkId(3), &entry("b", b"x")).unwrap();
    let gone = entry("b", b"x");
    store
        .remove_entry(NetworkId(3), &gone.table, &gone.key)
        .unwrap();
    store.set_members(b"members").unwrap();
    drop(store);

    let store = Store::open(directory.path()).unwrap();

    assert_eq!(store.identity().unwrap(), Some(identity()));
    assert_eq!(store.endpoints().unwrap(), [endpoint(1, true)]);
    assert_eq!(store.entries().unwrap(), [(NetworkId(3), entry("a", b""))]);
    assert_eq!(store.members().unwrap(), Some(b"members".to_vec()));
}

#[test]
fn every_start_has_a_generation_and_a_boot_of_its_own() {
    let directory = directory();
    let first = Store::open(directory.path()).unwrap().start(1_000).unwrap();

    let store = Store::open(directory.path()).unwrap();
    let second = store.start(900).unwrap();
    store.clear().unwrap();
    let third = store.start(5_000).unwrap();

    assert_eq!(first, (Generation(1_000), Boot(1_000)));
    assert_eq!(second, (Generation(1_001), Boot(1_001)));
    assert_eq!(third, (Generation(5_000), Boot(5_000)));
}

#[test]
fn what_an_engine_was_promised_is_there_until_it_is_given_back() {
    let directory = directory();
    let address = |last: u8| std::net::IpAddr::from([10, 0, 0, last]);
    let store = Store::open(directory.path()).unwrap();
    store.put_engine_network("abc", NetworkId(3)).unwrap();
    store.put_engine_network("def", NetworkId(4)).unwrap();
    store.hold_address(NetworkId(3), address(2)).unwrap();
    store.hold_address(NetworkId(3), address(3)).unwrap();
    drop(store);

    let store = Store::open(directory.path()).unwrap();
    store.remove_engine_network("def").unwrap();
    store.free_address(NetworkId(3), address(2)).unwrap();
    store.free_address(NetworkId(3), address(9)).unwrap();

    let networks = [("abc".to_owned(), NetworkId(3))].into();
    assert_eq!(store.engine_networks().unwrap(), networks);
    let held = [(NetworkId(3), address(3))].into();
    assert_eq!(store.held_addresses().unwrap(), held);
    store.clear().unwrap();
    assert!(store.engine_networks().unwrap().is_empty());
    assert!(store.held_addresses().unwrap().is_empty());
}

#[test]
fn what_was_cleared_is_gone() {
    let directory = directory();
    let store = Store::open(directory.path()).unwrap();
    store.set_identity(&identity()).unwrap();
    store.put_endpoint(&endpoint(1, true)).unwrap();
    store.put_entry(NetworkId(3), &entry("a", b"")).unwrap();
    store.set_members(b"members").unwrap();

    store.clear().unwrap();

    assert_eq!(store.identity().unwrap(), None);
    assert_eq!(store.members().unwrap(), None);
    assert!(store.endpoints().unwrap().is_empty());
    assert!(store.entries().unwrap().is_empty());
}

#[test]
fn only_the_owner_may_read_the_file() {
    let directory = directory();
    let inner = directory.path().join("data");
    drop(Store::open(&inner).unwrap());

    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;

    assert_eq!(mode(inner.join(FILE_NAME)), 0o600);
    assert_eq!(mode(inner), 0o700);
}

#[test]
fn a_second_daemon_on_one_directory_is_told() {
    let directory = directory();
    let first = Store::open(directory.path()).unwrap();

    let second = Store::open(directory.path());

    assert!(
        matches!(second, Err(StoreError::InUse { .. })),
        "{second:?}"
    );
    drop(first);
    assert!(Store::open(directory.path()).is_ok());
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let directory = directory();
    for bytes in [
        b"".as_slice(),
        b"x",
        b"some text that is no database at all",
    ] {
        fs::write(file(&directory), bytes).unwrap();

        let opened = Store::open(directory.path());

        assert!(
            matches!(opened, Err(StoreError::Foreign { .. })),
            "{opened:?}"
        );
        assert_eq!(fs::read(file(&directory)).unwrap(), bytes);
    }
}

#[test]
fn another_programs_database_is_left_alone() {
    let directory = directory();
    drop(redb::Database::create(file(&directory)).unwrap());

    let opened = Store::open(directory.path());

    assert!(
        matches!(opened, Err(StoreError::Foreign { .. })),
        "{opened:?}"
    );
}

#[test]
fn a_file_of_another_format_is_left_alone() {
    let directory = directory();
    drop(Store::open(directory.path()).unwrap());
    let database = redb::Database::open(file(&directory)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert("format", [0, 99].as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);

    let opened = Store::open(directory.path());

    assert!(
        matches!(opened, Err(StoreError::Format { found: 99, .. })),
        "{opened:?}"
    );
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let directory = directory();
    fs::write(directory.path().join("weft.redb.new"), b"half a file").unwrap();

    let store = Store::open(directory.path()).unwrap();

    assert_eq!(store.identity().unwrap(), None);
    assert!(!directory.path().join("weft.redb.new").exists());
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let directory = directory();
    let taken = directory.path().join("file");
    fs::write(&taken, b"").unwrap();

    let error = Store::open(&taken.join("data")).unwrap_err();

    assert!(error.to_string().contains("file/data/weft.redb"), "{error}");
}

/// Damage of every kind: the file either opens with what was in it, or is refused as damaged, and nothing panics.
#[test]
fn a_damaged_file_is_refused_and_never_a_panic() {
    let directory = directory();
    let store = Store::open(directory.path()).unwrap();
    for id in 0..50 {
        store.put_endpoint(&endpoint(id, true)).unwrap();
    }
    drop(store);
    let whole = fs::read(file(&directory)).unwrap();
    let mut refused = 0;
    let mut check = |bytes: &[u8], what: &str| {
        fs::write(file(&directory), bytes).unwrap();
        match Store::open(directory.path()).and_then(|store| store.endpoints()) {
            Ok(endpoints) => assert_eq!(endpoints.len(), 50, "{what}"),
            Err(StoreError::Corrupt { .. } | StoreError::Foreign { .. }) => refused += 1,
            Err(other) => panic!("{what}: {other:?}"),
        }
    };
    for part in 0..24 {
        let cut = whole.len() * part / 24;
        check(&whole[..cut], &format!("cut off at {cut}"));
    }
    for page in 0..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..][..4096].fill(0xa5);
        check(&bytes, &format!("page {page} overwritten"));
        let mut bytes = whole.clone();
        bytes[page * 4096 + 100] ^= 0x40;
        check(&bytes, &format!("page {page} with a flipped bit"));
    }
    for at in 0..320 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        check(&bytes, &format!("header byte {at} inverted"));
    }
    assert!(refused > 100, "{refused}");
}

/// A crash is a copy of the file at any moment: everything that was answered must be in it.
#[test]
fn a_copy_of_the_file_at_any_moment_has_all_that_was_answered() {
    let directory = directory();
    let copies = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for id in 0..20 {
        store.put_endpoint(&endpoint(id, true)).unwrap();
        let copy = copies.path().join(id.to_string());
        fs::create_dir(&copy).unwrap();
        fs::copy(file(&directory), copy.join(FILE_NAME)).unwrap();

        let crashed = Store::open(&copy).unwrap();

        assert_eq!(
            crashed.endpoints().unwrap().len(),
            usize::try_from(id).unwrap() + 1
        );
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_half_written_and_writing_goes_on_when_there_is_room() {
    let directory = directory();
    drop(Store::open(directory.path()).unwrap());
    let disk = FaultyDisk::holding(fs::read(file(&directory)).unwrap());
    let store = disk.store(directory.path()).unwrap();
    store.put_endpoint(&endpoint(1, true)).unwrap();
    let mut large = endpoint(2, true);
    large.entries = (0..40)
        .map(|n| entry(&n.to_string(), &[7; 60_000]))
        .collect();

    disk.set_room(Some(0));
    let refused = store.put_endpoint(&large);
    let again = store.put_endpoint(&endpoint(3, true));
    disk.set_room(None);
    let after = store.endpoints().unwrap();
    store.put_endpoint(&endpoint(4, true)).unwrap();

    assert!(
        matches!(refused, Err(StoreError::Full { .. })),
        "{refused:?}"
    );
    assert!(matches!(again, Err(StoreError::Full { .. })), "{again:?}");
    assert_eq!(after, [endpoint(1, true)]);
    assert_eq!(
        store.endpoints().unwrap(),
        [endpoint(1, true), endpoint(4, true)]
    );
}

/// The power goes at each operation of the disk in turn, and what was not synced is there, or not, or in part.
#[test]
fn without_power_at_any_operation_what_was_answered_is_there_and_nothing_is_half_written() {
    let directory = directory();
    drop(Store::open(directory.path()).unwrap());
    let fresh = fs::read(file(&directory)).unwrap();
    let write = |disk: &FaultyDisk| -> usize {
        let Ok(store) = disk.store(directory.path()) else {
            return 0;
        };
        let answered = (1..=4).take_while(|id| {
            let mut endpoint = endpoint(*id, true);
            endpoint.entries.push(entry("large", &[7; 3_000]));
            store.put_endpoint(&endpoint).is_ok()
        });
        answered.count()
    };
    let whole = FaultyDisk::holding(fresh.clone());
    assert_eq!(write(&whole), 4);
    let mut cut_short = 0;

    for power in 0..whole.operations() {
        let disk = FaultyDisk::holding(fresh.clone());
        disk.set_power(power);
        let answered = write(&disk);
        cut_short += usize::from(answered < 4);
        for kept in [Kept::All, Kept::None, Kept::Alternate, Kept::Torn] {
            let disk = disk.after_power_cut(kept);
            let store = disk.store(directory.path()).unwrap();
            let there = store.endpoints().unwrap();

            let ids: Vec<u128> = there.iter().map(|endpoint| endpoint.record.id.0).collect();
            let expected: Vec<u128> = (1..=4).take(there.len()).collect();
            assert_eq!(ids, expected, "{power}, {kept:?}");
            assert!(
                there.len() >= answered,
                "{power}, {kept:?}: {} of {answered}",
                there.len()
            );
            assert!(there.iter().all(|endpoint| endpoint.entries.len() == 2));
        }
    }
    assert!(cut_short > 10, "{cut_short}");
}
