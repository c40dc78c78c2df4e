//! Who is in the cluster: SWIM membership, with the `foca` crate inside and nowhere else.
//!
//! foca probes, suspects and gossips. Around it, because its dissemination alone is neither fast nor complete:
//!
//! - a suspicion that was refuted in time is dropped before foca sees its timer, or a healthy member would be told that it
//!   is down (a defect of foca 2.0);
//! - each datagram goes out twice, a few milliseconds apart; the second copy is dropped on receipt;
//! - who does not answer a probe is asked on a stream before it is suspected (see `stream_ping`);
//! - who is silent for longer than digests are apart is probed by its neighbours on the ring, so that no crash waits for chance
//!   (see `neighbours`);
//! - who begins to suspect a member tells it at once, again and again, so that it can refute; its neighbours on the ring do
//!   so too once they have heard, because whoever suspects it may be the one that cannot reach it;
//! - joins, refutations, downs and leaves are pushed at once: to both neighbours on a ring of all members and to two random
//!   ones; who hears news passes it on once. Two ring edges make the coverage certain where nothing is lost;
//! - that a member is down is believed on another's word only if it was suspected here for a while and did not refute; until
//!   then the word is a suspicion, of which it is told. In a crash the suspicion has come long before (see `hearsay`);
//! - who hears nobody, or is told that it is down, was cut off: it tells nobody whom it holds for down, and their first word
//!   brings them back (see `doubt`);
//! - a member whose life was declared over and who is heard again is told so, and returns with its rejoin count raised;
//! - an ack names a hash of the members its sender knows; who sees that theirs stay different asks for the sender's;
//! - while nobody answers, known members are asked again for ever; those that are down are asked now and then, so that a
//!   partition of any length heals.
//!
//! **Invariant:** only authentic records come in (any SWIM packet is a join).

mod announce;
mod answers;
mod config;
mod copies;
mod doubt;
mod effects;
mod figures;
mod hearsay;
mod history;
mod identity;
mod machine;
mod neighbours;
mod news;
mod output;
mod packet;
mod schedule;
mod sending;
mod stream_ping;
mod table;
mod tuning;

pub use answers::{Health, PROBES_MAX};
pub use config::{Config, Profile};
pub use figures::{FIGURES, Figure, FigureError, Setting, Value};
pub use history::{Missed, RECENT_MAX, Revised, TRAIL_MAX, Trail, Transition, What, Why};
pub use identity::{Identity, Member, MemberState, State};
pub use machine::Membership;
pub use output::{Event, MembershipError, Outgoing, PacketError, Stats};
pub use tuning::Tuned;

#[cfg(test)]
mod tests;
