//! SWIM packets and lists of members ⇄ bytes, as short as they can be: they are most of what an idle node sends.
//!
//! A packet on the wire names neither node: the envelope has proved the sender, and the receiver knows itself. foca wants
//! both, so what passes between foca and this file begins with a preamble that is cut off before a packet is sent and put
//! back when one is received.
//!
//! ```text
//! preamble  src node u64 | dst node u64 | dst address (family u8, 16, port u16)                    not on the wire
//! header    kind and flags u8 | src boot u32 | [rejoin u16] | src address | [incarnation u16] |
//!           dst boot u32 | [rejoin u16] | [probe number u8] | [third identity]
//! members   count u16, then each: flags u8 | node u64 | boot u32 | [rejoin u16] | address | [incarnation u16]
//! ```
//!
//! An ack ends with a hash of the members that its sender thinks alive, u32; foca does not see it.
//!
//! A zero rejoin count or incarnation is left out, as its flag says; an address is 4 or 16 bytes and a port.

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Message};

use super::{Identity, MemberState, PacketError, State};
use crate::core::model::{Boot, NodeId};

/// How long the preamble is, in bytes.
pub(super) const PREAMBLE_LEN: usize = 8 + 8 + 1 + 16 + 2;

/// The longest encoded member, in bytes.
pub(super) const MEMBER_LEN_MAX: usize = 1 + 8 + 4 + 2 + 16 + 2 + 2;

/// Longer than the longest header with its preamble.
const SCRATCH_LEN: usize = 128;

const KIND_BITS: u8 = 0b0000_1111;
const SRC_V6: u8 = 1 << 4;
const SRC_REJOIN: u8 = 1 << 5;
const SRC_INCARNATION: u8 = 1 << 6;
const DST_REJOIN: u8 = 1 << 7;

const STATE_BITS: u8 = 0b0000_0011;
const V6: u8 = 1 << 2;
const REJOIN: u8 = 1 << 3;
const INCARNATION: u8 = 1 << 4;

/// foca's codec: keeps no state.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketCodec;

impl foca::Codec<Identity> for PacketCodec {
    type Error = PacketError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), PacketError> {
        let mut scratch = [0; SCRATCH_LEN];
        let mut rest = &mut scratch[..];
        write_preamble(&mut rest, header.src.node, header.dst);
        write_header(&mut rest, header);
        let len = SCRATCH_LEN - rest.len();
        put_whole(buf, &scratch[..len])
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, PacketError> {
        read_header(&mut buf)
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), PacketError> {
        let mut scratch = [0; SCRATCH_LEN];
        let mut rest = &mut scratch[..];
        write_member(&mut rest, &MemberState::from_foca(member));
        let len = SCRATCH_LEN - rest.len();
        put_whole(buf, &scratch[..len])
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<foca::Member<Identity>, PacketError> {
        Ok(read_member(&mut buf)?.to_foca())
    }
}

/// Writes the preamble of a packet from `src` to `dst`.
pub(super) fn write_preamble(buf: &mut impl BufMut, src: NodeId, dst: Identity) {
    buf.put_u64(src.0);
    buf.put_u64(dst.node.0);
    let (family, ip) = match dst.addr.ip() {
        IpAddr::V4(v4) => (4, v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => (6, v6),
    };
    buf.put_u8(family);
    buf.put_slice(&ip.octets());
    buf.put_u16(dst.addr.port());
}

/// A whole packet, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header<Identity>,
    pub(super) members: Vec<MemberState>,
}

impl Packet {
    /// Reads a packet that begins with its preamble and takes all of `bytes`.
    pub(super) fn read(mut bytes: &[u8]) -> Result<Self, PacketError> {
        let header = read_header(&mut bytes)?;
        let mut members = Vec::new();
        if has_members(&header.message) {
            let count = bytes.try_get_u16().map_err(cut_off)?;
            for _ in 0..count {
                members.push(read_member(&mut bytes)?);
            }
        }
        match bytes.len() {
            0 => Ok(Self { header, members }),
            left => Err(PacketError::Trailing(left)),
        }
    }

    /// Writes the packet with its preamble, as foca reads it.
    pub(super) fn write(&self, buf: &mut Vec<u8>) {
        write_preamble(buf, self.header.src.node, self.header.dst);
        write_header(buf, &self.header);
        if has_members(&self.header.message) {
            buf.put_u16(u16::try_from(self.members.len()).unwrap_or(u16::MAX));
            for member in self.members.iter().take(usize::from(u16::MAX)) {
                write_member(buf, member);
            }
        }
    }

    /// Returns the third node that an indirect probe is about.
    pub(super) fn third(&self) -> Option<Identity> {
        operands(&self.header.message).1
    }
}

/// Returns whether the packet, without its preamble, is an ack.
pub(super) fn is_ack(body: &[u8]) -> bool {
    body.first()
        .is_some_and(|first| first & KIND_BITS == kind(&Message::Ack(0)))
}

/// Returns the number of a probe that begins with its preamble.
pub(super) fn ping_number(packet: &[u8]) -> Option<u8> {
    let first = packet.get(PREAMBLE_LEN)?;
    if first & KIND_BITS != kind(&Message::Ping(0)) {
        return None;
    }
    let header = read_header(&mut &*packet).ok()?;
    operands(&header.message).0
}

/// Writes a list of members: one after the other, to the end of the record.
pub(super) fn write_members(members: &[MemberState]) -> Vec<u8> {
    let mut buf = Vec::with_capacity(members.len() * MEMBER_LEN_MAX);
    for member in members {
        write_member(&mut buf, member);
    }
    buf
}

/// Reads a list of members that takes all of `bytes`.
pub(super) fn read_members(mut bytes: &[u8]) -> Result<Vec<MemberState>, PacketError> {
    let mut members = Vec::new();
    while !bytes.is_empty() {
        members.push(read_member(&mut bytes)?);
    }
    Ok(members)
}

fn has_members(message: &Message<Identity>) -> bool {
    !matches!(
        message,
        Message::Announce | Message::TurnUndead | Message::Broadcast
    )
}

/// Returns the number of a message's kind. Numbers are never reused.
fn kind(message: &Message<Identity>) -> u8 {
    match message {
        Message::Ping(_) => 0,
        Message::Ack(_) => 1,
        Message::PingReq { .. } => 2,
        Message::IndirectPing { .. } => 3,
        Message::IndirectAck { .. } => 4,
        Message::ForwardedAck { .. } => 5,
        Message::Announce => 6,
        Message::Feed => 7,
        Message::Gossip => 8,
        Message::Broadcast => 9,
        Message::TurnUndead => 10,
    }
}

/// Returns the probe number and the third node, where the kind has them.
fn operands(message: &Message<Identity>) -> (Option<u8>, Option<Identity>) {
    match *message {
        Message::Ping(probe) | Message::Ack(probe) => (Some(probe), None),
        Message::PingReq {
            target: third,
            probe_number,
        }
        | Message::IndirectPing {
            origin: third,
            probe_number,
        }
        | Message::IndirectAck {
            target: third,
            probe_number,
        }
        | Message::ForwardedAck {
            origin: third,
            probe_number,
        } => (Some(probe_number), Some(third)),
        Message::Announce
        | Message::Feed
        | Message::Gossip
        | Message::Broadcast
        | Message::TurnUndead => (None, None),
    }
}

fn write_header(buf: &mut impl BufMut, header: &Header<Identity>) {
    let (src, dst) = (&header.src, &header.dst);
    buf.put_u8(
        kind(&header.message)
            | flag(SRC_V6, src.addr.is_ipv6())
            | flag(SRC_REJOIN, src.rejoin != 0)
            | flag(SRC_INCARNATION, header.src_incarnation != 0)
            | flag(DST_REJOIN, dst.rejoin != 0),
    );
    buf.put_u32(src.boot.0);
    write_unless_zero(buf, src.rejoin);
    write_addr(buf, src.addr);
    write_unless_zero(buf, header.src_incarnation);
    buf.put_u32(dst.boot.0);
    write_unless_zero(buf, dst.rejoin);
    let (probe, third) = operands(&header.message);
    if let Some(probe) = probe {
        buf.put_u8(probe);
    }
    if let Some(identity) = third {
        write_member(
            buf,
            &MemberState {
                identity,
                incarnation: 0,
                state: State::Alive,
            },
        );
    }
}

fn read_header(buf: &mut impl Buf) -> Result<Header<Identity>, PacketError> {
    let src_node = NodeId(buf.try_get_u64().map_err(cut_off)?);
    let dst_node = NodeId(buf.try_get_u64().map_err(cut_off)?);
    let dst_addr = read_preamble_addr(buf)?;

    let first = buf.try_get_u8().map_err(cut_off)?;
    let src_boot = Boot(buf.try_get_u32().map_err(cut_off)?);
    let src_rejoin = read_if(buf, first & SRC_REJOIN != 0)?;
    let src_addr = read_addr(buf, first & SRC_V6 != 0)?;
    let src_incarnation = read_if(buf, first & SRC_INCARNATION != 0)?;
    let dst_boot = Boot(buf.try_get_u32().map_err(cut_off)?);
    let dst_rejoin = read_if(buf, first & DST_REJOIN != 0)?;
    let message = read_message(buf, first & KIND_BITS)?;
    Ok(Header {
        src: Identity {
            node: src_node,
            addr: src_addr,
            boot: src_boot,
            rejoin: src_rejoin,
        },
        src_incarnation,
        dst: Identity {
            node: dst_node,
            addr: dst_addr,
            boot: dst_boot,
            rejoin: dst_rejoin,
        },
        message,
    })
}

fn read_message(buf: &mut impl Buf, kind: u8) -> Result<Message<Identity>, PacketError> {
    Ok(match kind {
        0 => Message::Ping(buf.try_get_u8().map_err(cut_off)?),
        1 => Message::Ack(buf.try_get_u8().map_err(cut_off)?),
        2..=5 => {
            let probe_number = buf.try_get_u8().map_err(cut_off)?;
            let third = read_member(buf)?.identity;
            match kind {
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
                _ => Message::ForwardedAck {
                    origin: third,
                    probe_number,
                },
            }
        }
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        10 => Message::TurnUndead,
        _ => return Err(PacketError::Unknown("kind of packet")),
    })
}

fn write_member(buf: &mut impl BufMut, member: &MemberState) {
    let Identity {
        node,
        addr,
        boot,
        rejoin,
    } = member.identity;
    let state = match member.state {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
        State::Left => 3,
    };
    buf.put_u8(
        state
            | flag(V6, addr.is_ipv6())
            | flag(REJOIN, rejoin != 0)
            | flag(INCARNATION, member.incarnation != 0),
    );
    buf.put_u64(node.0);
    buf.put_u32(boot.0);
    write_unless_zero(buf, rejoin);
    write_addr(buf, addr);
    write_unless_zero(buf, member.incarnation);
}

fn read_member(buf: &mut impl Buf) -> Result<MemberState, PacketError> {
    let flags = buf.try_get_u8().map_err(cut_off)?;
    if flags & !(STATE_BITS | V6 | REJOIN | INCARNATION) != 0 {
        return Err(PacketError::Unknown("flag of a member"));
    }
    let state = match flags & STATE_BITS {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => State::Left,
    };
    let node = NodeId(buf.try_get_u64().map_err(cut_off)?);
    let boot = Boot(buf.try_get_u32().map_err(cut_off)?);
    let rejoin = read_if(buf, flags & REJOIN != 0)?;
    let addr = read_addr(buf, flags & V6 != 0)?;
    let incarnation = read_if(buf, flags & INCARNATION != 0)?;
    Ok(MemberState {
        identity: Identity {
            node,
            addr,
            boot,
            rejoin,
        },
        incarnation,
        state,
    })
}

fn write_addr(buf: &mut impl BufMut, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(v4) => buf.put_slice(&v4.octets()),
        IpAddr::V6(v6) => buf.put_slice(&v6.octets()),
    }
    buf.put_u16(addr.port());
}

fn read_addr(buf: &mut impl Buf, v6: bool) -> Result<SocketAddr, PacketError> {
    let ip: IpAddr = if v6 {
        read_octets::<16>(buf)?.into()
    } else {
        read_octets::<4>(buf)?.into()
    };
    let port = buf.try_get_u16().map_err(cut_off)?;
    Ok(SocketAddr::new(ip, port))
}

fn read_preamble_addr(buf: &mut impl Buf) -> Result<SocketAddr, PacketError> {
    let family = buf.try_get_u8().map_err(cut_off)?;
    let v6 = std::net::Ipv6Addr::from(read_octets::<16>(buf)?);
    let port = buf.try_get_u16().map_err(cut_off)?;
    let ip = match (family, v6.to_ipv4_mapped()) {
        (4, Some(v4)) => IpAddr::V4(v4),
        _ => IpAddr::V6(v6),
    };
    Ok(SocketAddr::new(ip, port))
}

fn read_octets<const N: usize>(buf: &mut impl Buf) -> Result<[u8; N], PacketError> {
    let mut octets = [0; N];
    buf.try_copy_to_slice(&mut octets).map_err(cut_off)?;
    Ok(octets)
}

fn write_unless_zero(buf: &mut impl BufMut, number: u16) {
    if number != 0 {
        buf.put_u16(number);
    }
}

fn read_if(buf: &mut impl Buf, present: bool) -> Result<u16, PacketError> {
    if present {
        buf.try_get_u16().map_err(cut_off)
    } else {
        Ok(0)
    }
}

fn flag(bit: u8, set: bool) -> u8 {
    if set { bit } else { 0 }
}

fn put_whole(mut buf: impl BufMut, bytes: &[u8]) -> Result<(), PacketError> {
    if buf.remaining_mut() < bytes.len() {
        return Err(PacketError::NoRoom);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn cut_off(_how_much: bytes::TryGetError) -> PacketError {
    PacketError::CutOff
}

#[cfg(test)]
mod tests;
