//! What became of the members, and why: `GET /v1/members/{member}`, `GET /v1/watch/members`.

use std::{convert::Infallible, net::SocketAddr, vec};

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::members::{self, Member, MemberState};
use crate::{
    controller::{MemberNews, MemberWatch, TransitionView},
    core::{
        membership,
        model::{Name, NodeId},
    },
};

/// What happened to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was not known, and is alive.
    Joined,
    /// It is suspected.
    Suspected,
    /// It refuted a suspicion, of the node that answers or of others.
    Refuted,
    /// It is held for down.
    Down,
    /// It has left.
    Left,
    /// It was held for down, or had left, and is alive.
    Returned,
    /// Its program was started anew before anybody held it for down.
    Restarted,
    /// It was gone for so long, or so many were, that it is not known any more.
    Forgotten,
}

impl What {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Suspected => "suspected",
            Self::Refuted => "refuted",
            Self::Down => "down",
            Self::Left => "left",
            Self::Returned => "returned",
            Self::Restarted => "restarted",
            Self::Forgotten => "forgotten",
        }
    }
}

/// How the node that answers knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The node that answers is the member, and began.
    Started,
    /// The node that answers is the member, and `by`, or a list if that is nobody, suspected it or held it for down.
    SaidOfUs,
    /// The member said so itself.
    SaidItself,
    /// `by` told it, and may have it from others.
    Told,
    /// It stood in a list of members: of a member that was asked for one, or on disk.
    Listed,
    /// It acknowledged no probe of `by`, neither directly nor through others.
    NoAck,
    /// Nor did it answer `by` on a stream in time.
    NoAnswer,
    /// It did not refute the suspicion in the time that it had.
    NotRefuted,
    /// `by`, or a list if that is nobody, holds it for down, and it has not refuted that.
    Accused,
    /// The cluster removed it.
    Removed,
    /// See `forgotten`.
    Outlived,
}

/// Something that became of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// A watch resumes after it; only in a watch, and not comparable between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The member.
    pub node: NodeId,
    /// Its name, if it is known.
    pub name: Option<Name>,
    /// What happened.
    pub what: What,
    /// How it is known.
    pub why: Why,
    /// Whose word or probe it was.
    pub by: Option<NodeId>,
    /// That node's name, if it is known.
    pub by_name: Option<Name>,
    /// The state since then; nothing if the member is forgotten.
    pub state: Option<MemberState>,
    /// Where it is.
    pub address: SocketAddr,
    /// Where it was before, if that was elsewhere.
    pub moved_from: Option<SocketAddr>,
    /// Which start of its program.
    pub boot: u32,
    /// How often that was held for down although it lived.
    pub rejoin: u16,
    /// How often it has refuted since.
    pub incarnation: u16,
}

/// One message of `GET /v1/watch/members`: first the members, then `synced`, then what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum MemberEvent {
    /// A member that was there when the watch began.
    Member(Box<Member>),
    /// All members were sent; what becomes of them follows.
    Synced {
        /// The last transition that is in what was sent.
        revision: u64,
    },
    /// Something became of a member.
    Transition(Transition),
    /// The watcher was too slow and has missed transitions: all members follow anew.
    Lagged,
}

/// `GET /v1/watch/members`: from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberWatchQuery {
    /// What became of the members after this revision instead of a list of them, if it is still remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

pub(super) fn transition(named: TransitionView) -> Transition {
    let TransitionView {
        view,
        name,
        by,
        by_name,
    } = named;
    let transition = view.transition;
    Transition {
        revision: view.revision,
        at_ms: view.at.0,
        node: transition.identity.node,
        name,
        what: what(transition.what),
        why: why(transition.why),
        by,
        by_name,
        state: transition.state.map(MemberState::from),
        address: transition.identity.addr,
        moved_from: transition.moved_from,
        boot: transition.identity.boot.0,
        rejoin: transition.identity.rejoin,
        incarnation: transition.incarnation,
    }
}

fn what(what: membership::What) -> What {
    match what {
        membership::What::Joined => What::Joined,
        membership::What::Suspected => What::Suspected,
        membership::What::Refuted => What::Refuted,
        membership::What::Down => What::Down,
        membership::What::Left => What::Left,
        membership::What::Returned => What::Returned,
        membership::What::Restarted => What::Restarted,
        membership::What::Forgotten => What::Forgotten,
    }
}

fn why(why: membership::Why) -> Why {
    match why {
        membership::Why::Started => Why::Started,
        membership::Why::SaidOfUs(_) => Why::SaidOfUs,
        membership::Why::Itself => Why::SaidItself,
        membership::Why::Told(_) => Why::Told,
        membership::Why::Listed => Why::Listed,
        membership::Why::NoAck {
            asked_on_stream: false,
        } => Why::NoAck,
        membership::Why::NoAck {
            asked_on_stream: true,
        } => Why::NoAnswer,
        membership::Why::NotRefuted => Why::NotRefuted,
        membership::Why::Accused(_) => Why::Accused,
        membership::Why::Removed => Why::Removed,
        membership::Why::Outlived => Why::Outlived,
    }
}

struct Following {
    watch: MemberWatch,
    pending: vec::IntoIter<Member>,
    synced: Option<u64>,
    stop: CancellationToken,
    /// Given back when the stream goes.
    _slot: OwnedSemaphorePermit,
}

/// Returns the events of a watch, until the daemon stops.
pub(super) fn events(
    watch: MemberWatch,
    from: Option<u64>,
    (slot, stop): (OwnedSemaphorePermit, CancellationToken),
) -> impl Stream<Item = Result<Event, Infallible>> {
    let following = Following {
        watch,
        pending: Vec::new().into_iter(),
        synced: from,
        stop,
        _slot: slot,
    };
    stream::unfold(following, |mut following| async {
        let event = following.next().await?;
        Some((Ok(written(&event)), following))
    })
}

impl Following {
    async fn next(&mut self) -> Option<MemberEvent> {
        loop {
            if let Some(member) = self.pending.next() {
                return Some(MemberEvent::Member(Box::new(member)));
            }
            if let Some(revision) = self.synced.take() {
                return Some(MemberEvent::Synced { revision });
            }
            let news = tokio::select! {
                news = self.watch.next() => news.ok()?,
                () = self.stop.cancelled() => return None,
            };
            match news {
                MemberNews::Members { members, revision } => {
                    let members: Vec<Member> = members.into_iter().map(members::member).collect();
                    self.pending = members.into_iter();
                    self.synced = Some(revision);
                }
                MemberNews::Transition(named) => {
                    return Some(MemberEvent::Transition(transition(named)));
                }
                MemberNews::Lagged => return Some(MemberEvent::Lagged),
            }
        }
    }
}

/// Writes an event: its kind and revision in the stream's own fields too, for `EventSource` readers.
fn written(event: &MemberEvent) -> Event {
    let data = serde_json::to_string(event).expect("our own types have string keys");
    let named = Event::default().data(data);
    match event {
        MemberEvent::Member(_) => named.event("member"),
        MemberEvent::Synced { revision } => named.event("synced").id(revision.to_string()),
        MemberEvent::Transition(transition) => match transition.revision {
            Some(revision) => named.event("transition").id(revision.to_string()),
            None => named.event("transition"),
        },
        MemberEvent::Lagged => named.event("lagged"),
    }
}
