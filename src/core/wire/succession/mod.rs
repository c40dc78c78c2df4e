//! A change of the cluster's authority, step by step.
//!
//! The next authority is announced, all live members trust it beside the one that signs; it is promoted, so that it signs, and every
//! member has itself certified anew; once nobody is left who can only show a certificate of the former one, that is dropped. Which
//! step is next is read off what the cluster agreed on, not remembered: the next leader goes on where a lost one was cut off.
//!
//! Who was away while the next one was announced comes back by itself until the former one is dropped: its certificate is still
//! taken, and members prove themselves to it by a certificate of the next authority that the former one signed.
//!
//! **Invariants:** the next one signs nothing while a live member does not trust it, and the former one is not dropped while a
//! member may have no other certificate; unless the cluster was told to [wait for nobody](AgreedAuthorities::waits_for_nobody).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bincode::{Decode, Encode};

use crate::core::model::{Instant, NodeId, Now, UnixMillis};

/// How long members have at each step when nobody is waited for, and at the last one in any case.
const SPREAD_FOR: Duration = Duration::from_secs(10);

/// How long to wait before those that lack something are told again.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Which authorities every member shall trust, as the cluster agreed. No secret is in it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct AgreedAuthorities {
    /// How often it was changed.
    pub version: u64,
    /// The certificate of the one that signs.
    pub signs: Vec<u8>,
    /// The other one, while the authority is being changed.
    pub other: Option<OtherAuthority>,
    /// Whether the change goes on without those that do not answer.
    pub waits_for_nobody: bool,
}

/// An authority that is trusted and does not sign.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum OtherAuthority {
    /// The one that will.
    Next {
        /// Its certificate.
        cert_der: Vec<u8>,
        /// A certificate of it that the present one signed, so that nobody else can name an authority.
        cross_der: Vec<u8>,
    },
    /// The one that did.
    Former {
        /// Its certificate.
        cert_der: Vec<u8>,
        /// A certificate of the one that signs now, which the former one signed: for who only trusts that.
        cross_der: Vec<u8>,
        /// Since when it signs no longer.
        since: UnixMillis,
    },
}

impl AgreedAuthorities {
    /// Returns the certificates of all that are trusted, that of the one that signs first.
    pub fn trusted(&self) -> Vec<&[u8]> {
        let other = self.other.as_ref().map(|other| match other {
            OtherAuthority::Next { cert_der, .. } | OtherAuthority::Former { cert_der, .. } => {
                cert_der
            }
        });
        let all = std::iter::once(&self.signs).chain(other);
        all.map(Vec::as_slice).collect()
    }

    /// Returns what is shown beside a certificate of the one that signs to those who only trust the former one.
    pub fn cross(&self) -> Option<&[u8]> {
        match self.other.as_ref()? {
            OtherAuthority::Next { .. } => None,
            OtherAuthority::Former { cross_der, .. } => Some(cross_der),
        }
    }
}

/// Who is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Present {
    /// Members that are alive, the one that leads among them.
    pub live: BTreeSet<NodeId>,
    /// Members that are not.
    pub away: BTreeSet<NodeId>,
}

/// What a member has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Has {
    /// Which version of the authorities it trusts.
    pub version: u64,
    /// Whether its certificate is of the one that signs in that version.
    pub certified: bool,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Have these members trust what was agreed and be certified by the one that signs, and say what each
    /// [has](Succession::handle_has) then.
    Tell(BTreeSet<NodeId>),
    /// Have the next one sign.
    Promote,
    /// Have the former one dropped.
    Retire,
    /// Look again after so long; it is these members that are waited for.
    Wait(Duration, BTreeSet<NodeId>),
    /// Nothing: one authority is trusted.
    Done,
}

/// One change of the authority, on the node that leads.
#[derive(Clone, Debug)]
pub struct Succession {
    /// How long a certificate is valid: after so long none of the former one's is.
    life: Duration,
    has: BTreeMap<NodeId, Has>,
    /// The version that is on its way, since when, and when those that lack it are told again.
    spread: Option<(u64, Instant, Instant)>,
}

impl Succession {
    /// Begins to go on with what was agreed.
    pub fn new(life: Duration) -> Self {
        Self {
            life,
            has: BTreeMap::new(),
            spread: None,
        }
    }

    /// Notes what a member has.
    pub fn handle_has(&mut self, node: NodeId, has: Has) {
        self.has.insert(node, has);
    }

    /// Returns what to do next.
    pub fn step(&mut self, agreed: &AgreedAuthorities, present: &Present, now: Now) -> Step {
        let (since, tell_at) = self.spread(agreed.version, now.instant);
        let lacking: BTreeSet<NodeId> = self.lacking(agreed, &present.live);
        let was_time = now.instant >= since + SPREAD_FOR;
        let give_up = was_time && (agreed.waits_for_nobody || agreed.other.is_none());
        if !lacking.is_empty() && !give_up {
            if now.instant < tell_at {
                return Step::Wait(tell_at.saturating_duration_since(now.instant), lacking);
            }
            self.spread = Some((agreed.version, since, now.instant + TELL_AGAIN));
            return Step::Tell(lacking);
        }
        match &agreed.other {
            None => Step::Done,
            Some(OtherAuthority::Next { .. }) => Step::Promote,
            Some(OtherAuthority::Former { since, .. }) => {
                let away = self.lacking(agreed, &present.away);
                let none_is_valid = passed(*since, now.wall) > self.life;
                if away.is_empty() || none_is_valid || agreed.waits_for_nobody {
                    Step::Retire
                } else {
                    Step::Wait(TELL_AGAIN, away)
                }
            }
        }
    }

    /// Returns since when a version is on its way, and when members are told again.
    fn spread(&mut self, version: u64, now: Instant) -> (Instant, Instant) {
        let known = self.spread.filter(|(known, ..)| *known == version);
        let (_, since, tell_at) = *self.spread.insert(known.unwrap_or((version, now, now)));
        (since, tell_at)
    }

    fn lacking(&self, agreed: &AgreedAuthorities, nodes: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let lacks = |node: &&NodeId| {
            let has = self.has.get(node).copied().unwrap_or_default();
            has.version < agreed.version || !has.certified
        };
        nodes.iter().filter(lacks).copied().collect()
    }
}

/// Returns how long ago that was by the wall clock; one that was set back puts it off by as much.
fn passed(since: UnixMillis, now: UnixMillis) -> Duration {
    Duration::from_millis(now.0.saturating_sub(since.0))
}

#[cfg(test)]
mod tests;
