//! Packets and lists of members as bytes.

use proptest::prelude::*;

use super::*;

fn identity(node: u64, addr: &str, rejoin: u16) -> Identity {
    Identity {
        node: NodeId(node),
        addr: addr.parse().unwrap(),
        boot: Boot(0x0102_0304),
        rejoin,
    }
}

fn header(message: Message<Identity>) -> Header<Identity> {
    Header {
        src: identity(1, "10.0.0.1:9338", 0),
        src_incarnation: 0,
        dst: identity(2, "10.0.0.2:9338", 0),
        message,
    }
}

#[test]
fn a_ping_has_these_bytes() {
    let packet = Packet {
        header: header(Message::Ping(7)),
        members: Vec::new(),
    };

    let mut bytes = Vec::new();
    packet.write(&mut bytes);

    assert_eq!(
        bytes[PREAMBLE_LEN..],
        [
            0, // ping, no flags
            1, 2, 3, 4, 10, 0, 0, 1, 0x24, 0x7a, // from boot, address
            1, 2, 3, 4, 7, // to boot, probe number
            0, 0 // no members
        ]
    );
}

#[test]
fn a_member_has_these_bytes() {
    let member = MemberState {
        identity: identity(5, "10.0.0.5:9338", 3),
        incarnation: 9,
        state: State::Left,
    };

    let bytes = write_members(&[member]);

    assert_eq!(
        bytes,
        [
            0b0001_1011,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            5,
            1,
            2,
            3,
            4,
            0,
            3,
            10,
            0,
            0,
            5,
            0x24,
            0x7a,
            0,
            9
        ]
    );
}

fn any_identity() -> impl Strategy<Value = Identity> {
    (
        any::<u64>(),
        any::<SocketAddr>(),
        any::<u32>(),
        prop_oneof![Just(0), any::<u16>()],
    )
        .prop_map(|(node, addr, boot, rejoin)| Identity {
            node: NodeId(node),
            addr: SocketAddr::new(addr.ip(), addr.port()),
            boot: Boot(boot),
            rejoin,
        })
}

fn any_member() -> impl Strategy<Value = MemberState> {
    let state = prop_oneof![
        Just(State::Alive),
        Just(State::Suspect),
        Just(State::Down),
        Just(State::Left)
    ];
    (any_identity(), prop_oneof![Just(0), any::<u16>()], state).prop_map(
        |(identity, incarnation, state)| MemberState {
            identity,
            incarnation,
            state,
        },
    )
}

fn any_message() -> impl Strategy<Value = Message<Identity>> {
    (0u8..11, any::<u8>(), any_identity()).prop_map(|(kind, probe_number, third)| match kind {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq {
            target: third,
            probe_number,
        },
        3 => Message::IndirectPing {
            origin: third,
            probe_number,
        },
        4 => Message::IndirectAck {
            target: third,
            probe_number,
        },
        5 => Message::ForwardedAck {
            origin: third,
            probe_number,
        },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        _ => Message::TurnUndead,
    })
}

proptest! {
    #[test]
    fn a_packet_survives_its_bytes(
        src in any_identity(), dst in any_identity(), src_incarnation in any::<u16>(), message in any_message(),
        members in proptest::collection::vec(any_member(), 0..20),
    ) {
        let members = if has_members(&message) { members } else { Vec::new() };
        let packet = Packet { header: Header { src, src_incarnation, dst, message }, members };
        let mut bytes = Vec::new();

        packet.write(&mut bytes);

        prop_assert_eq!(Packet::read(&bytes), Ok(packet));
    }

    #[test]
    fn a_list_of_members_survives_its_bytes(members in proptest::collection::vec(any_member(), 0..60)) {
        let bytes = write_members(&members);

        prop_assert!(bytes.len() <= members.len() * MEMBER_LEN_MAX);
        prop_assert_eq!(read_members(&bytes), Ok(members));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop((Packet::read(&bytes), read_members(&bytes)));
    }
}
