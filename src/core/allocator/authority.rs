//! The authorities: the next one announced, promoted, the former one retired. Who learns of a change asks a voter for it.

use bincode::{Decode, Encode};

use super::{
    Action, Allocator, AllocatorError, Command, Outcome, Secret, TokenSecret,
    keys::{table, version_value},
};
use crate::core::{
    model::{Hlc, Key},
    wire::succession::{AgreedAuthorities, OtherAuthority},
};

/// What was agreed beyond the one that [signs](super::Founding::ca_cert_der).
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub(super) struct Authorities {
    version: u64,
    waits_for_nobody: bool,
    stage: Stage,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
enum Stage {
    /// One is trusted.
    #[default]
    Settled,
    Announced(Next),
    Promoted(Former),
}

/// The authority that will sign.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
struct Next {
    cert_der: Vec<u8>,
    key_der: Secret,
    cross_der: Vec<u8>,
}

/// The authority that did. Its key is not kept.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
struct Former {
    cert_der: Vec<u8>,
    cross_der: Vec<u8>,
    since: Hlc,
}

impl Allocator {
    /// Returns which authorities every member shall trust, once the cluster is founded.
    pub fn authorities(&self) -> Option<AgreedAuthorities> {
        let founding = self.founding.as_ref()?;
        let other = match &self.authorities.stage {
            Stage::Settled => None,
            Stage::Announced(next) => Some(OtherAuthority::Next {
                cert_der: next.cert_der.clone(),
                cross_der: next.cross_der.clone(),
            }),
            Stage::Promoted(former) => Some(OtherAuthority::Former {
                cert_der: former.cert_der.clone(),
                cross_der: former.cross_der.clone(),
                since: former.since.wall(),
            }),
        };
        Some(AgreedAuthorities {
            version: self.authorities.version,
            signs: founding.ca_cert_der.clone(),
            other,
            waits_for_nobody: self.authorities.waits_for_nobody,
        })
    }

    pub(super) fn announce_authority(
        &mut self,
        command: &Command,
    ) -> Result<Outcome, AllocatorError> {
        let Action::AnnounceAuthority {
            cert_der,
            key_der,
            cross_der,
            waits_for_nobody,
        } = &command.action
        else {
            return Err(AllocatorError::AuthoritiesChanged);
        };
        if self.authorities.stage != Stage::Settled {
            return Err(AllocatorError::AuthoritiesChanged);
        }
        self.authorities.waits_for_nobody = *waits_for_nobody;
        let next = Next {
            cert_der: cert_der.clone(),
            key_der: key_der.clone(),
            cross_der: cross_der.clone(),
        };
        self.enter(command.at, Stage::Announced(next));
        Ok(Outcome::Done)
    }

    pub(super) fn promote_authority(
        &mut self,
        at: Hlc,
        version: u64,
        secret: &TokenSecret,
    ) -> Result<Outcome, AllocatorError> {
        let founding = self.founding.as_mut().ok_or(AllocatorError::NotFounded)?;
        let Stage::Announced(next) = &self.authorities.stage else {
            return Err(AllocatorError::AuthoritiesChanged);
        };
        if version != self.authorities.version {
            return Err(AllocatorError::AuthoritiesChanged);
        }
        let former = Former {
            cert_der: std::mem::replace(&mut founding.ca_cert_der, next.cert_der.clone()),
            cross_der: next.cross_der.clone(),
            since: at,
        };
        founding.ca_key_der = next.key_der.clone();
        founding.token_secret = secret.clone();
        self.enter(at, Stage::Promoted(former));
        Ok(Outcome::Done)
    }

    pub(super) fn retire_authority(
        &mut self,
        at: Hlc,
        version: u64,
    ) -> Result<Outcome, AllocatorError> {
        let is_it = version == self.authorities.version;
        if !is_it || !matches!(self.authorities.stage, Stage::Promoted(_)) {
            return Err(AllocatorError::AuthoritiesChanged);
        }
        self.authorities.waits_for_nobody = false;
        self.enter(at, Stage::Settled);
        Ok(Outcome::Done)
    }

    pub(super) fn hurry_authority(&mut self, at: Hlc) -> Result<Outcome, AllocatorError> {
        let stage = self.authorities.stage.clone();
        if stage == Stage::Settled {
            return Err(AllocatorError::AuthoritiesChanged);
        }
        if !std::mem::replace(&mut self.authorities.waits_for_nobody, true) {
            self.enter(at, stage);
        }
        Ok(Outcome::Done)
    }

    fn enter(&mut self, at: Hlc, stage: Stage) {
        self.authorities.stage = stage;
        self.renumber_authorities(at, 1);
    }

    /// Moves the version of the authorities on, and tells.
    pub(super) fn renumber_authorities(&mut self, at: Hlc, by: u64) {
        self.authorities.version += by;
        let version = version_value(self.authorities.version);
        self.log.put(at, table(), authorities_key(), version);
    }
}

fn authorities_key() -> Key {
    Key::new(b"authorities".to_vec()).expect("a constant within the limits")
}
