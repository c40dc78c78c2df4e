//! Whatever an authentic but mad node sends: no panic, no flood, and what we know stays what foca knows.

use std::time::Duration;

use foca::{Header, Message};
use proptest::prelude::*;

use super::network::{addr, id, identity};
use crate::core::{
    membership::{
        Config, Identity, MemberState, Membership, State,
        packet::{PREAMBLE_LEN, Packet, write_members},
    },
    model::Instant,
};

/// Identities of few nodes, few boots and few addresses, so that they meet and clash.
fn any_identity() -> impl Strategy<Value = Identity> {
    (1u64..6, 1u32..4, 0u16..3, 0u64..3).prop_map(|(node, boot, rejoin, place)| Identity {
        addr: addr(node + 100 * place),
        rejoin,
        ..identity(node, boot)
    })
}

fn any_member() -> impl Strategy<Value = MemberState> {
    let state = prop_oneof![
        Just(State::Alive),
        Just(State::Suspect),
        Just(State::Down),
        Just(State::Left)
    ];
    (any_identity(), prop_oneof![0u16..4, Just(u16::MAX)], state).prop_map(
        |(identity, incarnation, state)| MemberState {
            identity,
            incarnation,
            state,
        },
    )
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let members = proptest::collection::vec(any_member(), 0..5);
    (0u8..7, any_identity(), any_identity(), 0u16..4, members).prop_map(
        |(kind, src, third, src_incarnation, members)| {
            let message = match kind {
                0 => Message::Ping(1),
                1 => Message::PingReq {
                    target: third,
                    probe_number: 1,
                },
                2 => Message::ForwardedAck {
                    origin: third,
                    probe_number: 1,
                },
                3 => Message::Announce,
                4 => Message::Feed,
                5 => Message::Gossip,
                _ => Message::TurnUndead,
            };
            let header = Header {
                src,
                src_incarnation,
                dst: identity(1, 1),
                message,
            };
            Packet { header, members }
        },
    )
}

#[derive(Debug, Clone)]
enum Input {
    Packet(Packet),
    Members(u64, Vec<MemberState>),
    Bytes(u64, Vec<u8>),
    Wait(u64),
}

fn any_input() -> impl Strategy<Value = Input> {
    let members = proptest::collection::vec(any_member(), 0..5);
    let bytes = proptest::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        4 => any_packet().prop_map(Input::Packet),
        2 => (1u64..6, members).prop_map(|(from, members)| Input::Members(from, members)),
        1 => (1u64..6, bytes).prop_map(|(from, bytes)| Input::Bytes(from, bytes)),
        2 => (1u64..900).prop_map(Input::Wait),
    ]
}

fn feed(machine: &mut Membership, now: &mut Instant, input: Input) {
    match input {
        Input::Packet(mut packet) => {
            packet.header.dst = *machine.identity();
            let mut bytes = Vec::new();
            packet.write(&mut bytes);
            let from = packet.header.src.node;
            drop(machine.handle_datagram(*now, from, &bytes[PREAMBLE_LEN..]));
        }
        Input::Members(from, members) => {
            drop(machine.handle_update(*now, id(from), &write_members(&members)));
        }
        Input::Bytes(from, bytes) => {
            drop(machine.handle_datagram(*now, id(from), &bytes));
            drop(machine.handle_update(*now, id(from), &bytes));
        }
        Input::Wait(millis) => {
            let until = *now + Duration::from_millis(millis);
            while let Some(at) = machine.poll_timeout().filter(|at| *at <= until) {
                *now = at.max(*now);
                machine.handle_timeout(*now);
            }
            *now = until;
        }
    }
}

proptest! {
    #[test]
    fn a_mad_node_breaks_nothing(inputs in proptest::collection::vec(any_input(), 1..60)) {
        let mut now = Instant::from_start(Duration::from_secs(1));
        let mut machine = Membership::new(Config::lan(), identity(1, 1), 1, now);

        for input in inputs {
            let waited = matches!(input, Input::Wait(_));
            feed(&mut machine, &mut now, input);

            let sent = std::iter::from_fn(|| machine.poll_transmit()).count();
            let happened = std::iter::from_fn(|| machine.poll_event()).count();
            prop_assert!(waited || sent <= 60, "{sent} records for one");
            prop_assert!(happened <= 60);
            let boot = machine.identity().boot;
            prop_assert_eq!((machine.identity().node, boot), (id(1), identity(1, 1).boot));
            prop_assert!(machine.members().all(|member| member.identity.node != id(1)));
            for member in machine.foca.iter_membership_state() {
                let row = machine.table.get(member.id().node).unwrap();
                prop_assert!(row.agrees_with(&MemberState::from_foca(member)));
            }
        }
    }
}
