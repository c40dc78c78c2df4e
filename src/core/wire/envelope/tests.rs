//! What the envelope lets through and what it does not.

use proptest::prelude::*;

use super::*;

const CLUSTER: ClusterId = ClusterId(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
const ALICE: NodeId = NodeId(0xa11c_e000_0000_0001);
const BOB: NodeId = NodeId(0xb0b0_0000_0000_0002);
const BOOT: Boot = Boot(7);

fn key(byte: u8) -> ClusterKey {
    ClusterKey([byte; 32])
}

fn ring() -> Keyring {
    Keyring::new(KeyId(3), key(0x42))
}

fn sealer_of(node: NodeId, boot: Boot) -> Sealer {
    Sealer::new(CLUSTER, node, boot, &ring())
}

fn sealer() -> Sealer {
    sealer_of(ALICE, BOOT)
}

fn opener() -> Opener {
    Opener::new(CLUSTER, BOB, ring())
}

/// Asserts that `datagram` is refused for that reason, counted once, and leaves no trace.
fn assert_refused(opener: &mut Opener, datagram: &[u8], reason: Rejected) {
    let (senders, total) = (opener.senders.len(), opener.rejections().total());

    assert_eq!(opener.open(datagram), Err(reason));

    assert_eq!(opener.senders.len(), senders);
    assert_eq!(opener.rejections().total(), total + 1);
}

#[test]
fn a_payload_survives_its_envelope() {
    let datagram = sealer().seal(BOB, b"news").unwrap();

    let opened = opener().open(&datagram).unwrap();

    assert_eq!(
        opened,
        Opened {
            version: OLDEST,
            from: ALICE,
            boot: BOOT,
            payload: Bytes::from_static(b"news"),
        }
    );
}

#[test]
fn a_datagram_has_these_bytes() {
    let datagram = sealer().seal(BOB, b"golden").unwrap();

    let hex: String = datagram.iter().map(|b| format!("{b:02x}")).collect();

    // Computed with another implementation of HKDF and AES-GCM (pyca/cryptography).
    assert_eq!(
        hex,
        concat!(
            "01",
            "03",
            "a11ce00000000001",
            "00000007",
            "0000000000000001",
            "4fc86710e13dfaf09a8d5b4b12c8501eddf0ece8d932"
        )
    );
}

#[test]
fn an_envelope_adds_38_bytes_and_a_full_datagram_has_1400() {
    let mut sealer = sealer();

    assert_eq!(OVERHEAD, 38);
    assert_eq!(sealer.seal(BOB, b"").unwrap().len(), OVERHEAD);
    assert_eq!(sealer.seal(BOB, &[0; PAYLOAD_MAX]).unwrap().len(), 1400);
    assert_eq!(
        sealer.seal(BOB, &[0; PAYLOAD_MAX + 1]),
        Err(SealError::TooLong {
            len: PAYLOAD_MAX + 1
        })
    );
}

#[test]
fn every_truncation_and_every_changed_bit_is_refused() {
    let datagram = sealer().seal(BOB, b"news").unwrap();
    let mut opener = opener();

    for len in 0..datagram.len() {
        let reason = if len < OVERHEAD {
            Rejected::TooShort
        } else {
            Rejected::Forged
        };
        assert_refused(&mut opener, &datagram[..len], reason);
    }
    for bit in 0..datagram.len() * 8 {
        let mut changed = datagram.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(opener.open(&changed).is_err(), "bit {bit}");
    }

    assert!(opener.senders.is_empty());
    assert_eq!(opener.open(&datagram).unwrap().from, ALICE);
}

#[test]
fn a_datagram_that_is_too_long_is_refused() {
    assert_refused(
        &mut opener(),
        &[OLDEST; DATAGRAM_MAX + 1],
        Rejected::TooLong,
    );
}

#[test]
fn a_replay_is_refused_and_so_is_what_the_window_has_left_behind() {
    let mut sealer = sealer();
    let mut opener = opener();
    let first = sealer.seal(BOB, b"first").unwrap();
    let second = sealer.seal(BOB, b"second").unwrap();

    opener.open(&second).unwrap();
    assert_refused(&mut opener, &second, Rejected::Replayed);
    for _ in 0..1024 {
        opener.open(&sealer.seal(BOB, b"more").unwrap()).unwrap();
    }

    assert_refused(&mut opener, &first, Rejected::Replayed);
    assert_eq!(opener.rejections().replayed, 2);
}

#[test]
fn a_late_datagram_within_the_window_is_opened() {
    let mut sealer = sealer();
    let mut opener = opener();
    let late = sealer.seal(BOB, b"late").unwrap();
    opener.open(&sealer.seal(BOB, b"early").unwrap()).unwrap();

    assert!(opener.open(&late).is_ok());
}

#[test]
fn another_key_cluster_receiver_or_version_is_refused() {
    let wrong_key = Keyring::new(KeyId(3), key(0x43));
    let unknown_key = Keyring::new(KeyId(4), key(0x42));
    let mut opener = opener();
    let sealed_by = |cluster, ring: &Keyring| {
        Sealer::new(cluster, ALICE, BOOT, ring)
            .seal(BOB, b"x")
            .unwrap()
    };
    let elsewhere = sealer().seal(NodeId(99), b"x").unwrap();
    let mut newer = sealer().seal(BOB, b"x").unwrap().to_vec();
    newer[0] = NEWEST + 1;

    assert_refused(
        &mut opener,
        &sealed_by(CLUSTER, &wrong_key),
        Rejected::Forged,
    );
    assert_refused(
        &mut opener,
        &sealed_by(CLUSTER, &unknown_key),
        Rejected::UnknownKey(KeyId(4)),
    );
    assert_refused(
        &mut opener,
        &sealed_by(ClusterId(1), &ring()),
        Rejected::Forged,
    );
    assert_refused(&mut opener, &elsewhere, Rejected::Forged);
    assert_refused(&mut opener, &newer, Rejected::Version(NEWEST + 1));
    assert_eq!(
        *opener.rejections(),
        Rejections {
            forged: 3,
            unknown_key: 1,
            version: 1,
            ..Rejections::default()
        }
    );
}

#[test]
fn a_reflected_datagram_is_refused() {
    let mut ours = Opener::new(CLUSTER, ALICE, ring());

    let datagram = sealer().seal(BOB, b"x").unwrap();

    assert_refused(&mut ours, &datagram, Rejected::FromOurselves);
}

#[test]
fn a_newer_boot_starts_a_new_window_and_shuts_the_older_one_out() {
    let mut older = sealer_of(ALICE, BOOT);
    let mut newer = sealer_of(ALICE, Boot(8));
    let mut opener = opener();
    for _ in 0..5_000 {
        opener.open(&older.seal(BOB, b"x").unwrap()).unwrap();
    }

    let opened = opener.open(&newer.seal(BOB, b"again").unwrap()).unwrap();

    assert_eq!(opened.boot, Boot(8));
    assert_refused(
        &mut opener,
        &older.seal(BOB, b"x").unwrap(),
        Rejected::OldBoot,
    );
}

#[test]
fn a_forged_newer_boot_does_not_shut_the_sender_out() {
    let mut honest = sealer();
    let mut opener = opener();
    opener.open(&honest.seal(BOB, b"x").unwrap()).unwrap();
    let mut forged = sealer_of(ALICE, Boot(u32::MAX))
        .seal(BOB, b"x")
        .unwrap()
        .to_vec();
    *forged.last_mut().unwrap() ^= 1;

    assert_refused(&mut opener, &forged, Rejected::Forged);

    assert!(opener.open(&honest.seal(BOB, b"x").unwrap()).is_ok());
}

#[test]
fn keys_rotate_without_a_datagram_lost() {
    let mut sealer = sealer();
    let mut opener = opener();
    let mut rotated = ring();
    rotated.add(KeyId(4), key(0x44));
    opener.open(&sealer.seal(BOB, b"x").unwrap()).unwrap();
    let in_flight = sealer.seal(BOB, b"old key").unwrap();

    opener.set_keyring(rotated.clone());
    rotated.promote(KeyId(4));
    sealer.set_keyring(&rotated);

    assert!(opener.open(&sealer.seal(BOB, b"new key").unwrap()).is_ok());
    assert!(opener.open(&in_flight).is_ok());
    assert_refused(&mut opener, &in_flight, Rejected::Replayed);
}

#[test]
fn a_key_id_that_is_used_again_opens_with_the_new_key_only() {
    let mut opener = opener();
    let mut sealer = sealer();
    opener.open(&sealer.seal(BOB, b"x").unwrap()).unwrap();

    opener.set_keyring(Keyring::new(KeyId(3), key(0x55)));

    assert_refused(
        &mut opener,
        &sealer.seal(BOB, b"x").unwrap(),
        Rejected::Forged,
    );
    sealer.set_keyring(&Keyring::new(KeyId(3), key(0x55)));
    assert!(opener.open(&sealer.seal(BOB, b"x").unwrap()).is_ok());
}

#[test]
fn the_longest_silent_sender_is_forgotten_at_the_bound() {
    let mut opener = opener();
    opener.senders_max = 2;
    for node in [1, 2, 1, 3] {
        let mut sealer = sealer_of(NodeId(node), Boot(opener.opened() as u32));
        opener.open(&sealer.seal(BOB, b"x").unwrap()).unwrap();
    }

    let known: Vec<_> = opener.senders.keys().copied().collect();

    assert_eq!(known, [NodeId(1), NodeId(3)]);
}

#[test]
fn a_used_up_counter_seals_no_more() {
    let mut sealer = sealer();
    sealer.counter = u64::MAX - 1;

    assert!(sealer.seal(BOB, b"last").is_ok());
    assert_eq!(sealer.seal(BOB, b"x"), Err(SealError::Exhausted));
}

proptest! {
    #[test]
    fn random_bytes_are_refused_and_leave_no_trace(bytes in proptest::collection::vec(any::<u8>(), 0..1_500)) {
        let mut opener = opener();

        prop_assert!(opener.open(&bytes).is_err());

        prop_assert!(opener.senders.is_empty());
    }

    #[test]
    fn random_bytes_behind_a_sound_header_are_refused_too(bytes in proptest::collection::vec(any::<u8>(), 16..1_378)) {
        let mut datagram = Vec::new();
        Header { version: OLDEST, key: KeyId(3), sender: ALICE, boot: BOOT, counter: 1 }.write(&mut datagram);
        datagram.extend_from_slice(&bytes);
        let mut opener = opener();

        prop_assert_eq!(opener.open(&datagram), Err(Rejected::Forged));

        prop_assert!(opener.senders.is_empty());
    }

    #[test]
    fn any_payload_survives(payload in proptest::collection::vec(any::<u8>(), 0..=PAYLOAD_MAX)) {
        let datagram = sealer().seal(BOB, &payload).unwrap();

        prop_assert_eq!(opener().open(&datagram).unwrap().payload, payload);
    }
}

#[test]
fn each_version_is_opened_as_itself_and_by_who_speaks_it() {
    for version in OLDEST..=NEWEST {
        let datagram = sealer().seal_in(version, BOB, b"news").unwrap();

        let opened = opener().open(&datagram).unwrap();
        assert_eq!(
            (opened.version, &opened.payload[..]),
            (version, &b"news"[..])
        );

        let mut other = datagram.to_vec();
        other[0] = if version == OLDEST { NEWEST } else { OLDEST };
        assert_refused(&mut opener(), &other, Rejected::Forged);
        let mut old = opener().reading_up_to(OLDEST);
        if version > OLDEST {
            assert_refused(&mut old, &datagram, Rejected::Version(version));
        }
    }
}

#[test]
fn a_sender_may_go_from_one_version_to_another_and_back() {
    let (mut sealer, mut opener) = (sealer(), opener());

    for version in [OLDEST, NEWEST, NEWEST, OLDEST] {
        let datagram = sealer.seal_in(version, BOB, b"x").unwrap();

        assert!(opener.open(&datagram).is_ok());
        assert_refused(&mut opener, &datagram, Rejected::Replayed);
    }
}
