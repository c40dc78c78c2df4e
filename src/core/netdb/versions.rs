//! Who holds a key: one version an owner's log.

use crate::core::model::Hlc;

/// One owner's newest dot of a key.
#[derive(Debug)]
pub(super) struct Version {
    /// The place of its log.
    pub(super) log: u32,
    pub(super) seq: u64,
    pub(super) written: Hlc,
    pub(super) value: Option<Box<[u8]>>,
}

/// The versions of one key: nearly always one.
#[derive(Debug)]
pub(super) enum Versions {
    One(Version),
    Many(Vec<Version>),
}

impl Versions {
    pub(super) fn as_slice(&self) -> &[Version] {
        match self {
            Self::One(version) => std::slice::from_ref(version),
            Self::Many(versions) => versions,
        }
    }

    pub(super) fn of(&self, log: u32) -> Option<&Version> {
        self.as_slice().iter().find(|version| version.log == log)
    }

    /// Puts a version in place of its log's former one, which it returns.
    pub(super) fn put(&mut self, version: Version) -> Option<Version> {
        match self {
            Self::One(former) if former.log == version.log => {
                Some(std::mem::replace(former, version))
            }
            Self::One(_) => {
                let Self::One(former) = std::mem::replace(self, Self::Many(Vec::with_capacity(2)))
                else {
                    unreachable!("it was just matched");
                };
                if let Self::Many(versions) = self {
                    versions.extend([former, version]);
                }
                None
            }
            Self::Many(versions) => match versions.iter_mut().find(|v| v.log == version.log) {
                Some(former) => Some(std::mem::replace(former, version)),
                None => {
                    versions.push(version);
                    None
                }
            },
        }
    }

    /// Takes a log's version out. Returns it, and whether none is left.
    pub(super) fn take(&mut self, log: u32) -> (Option<Version>, bool) {
        match self {
            Self::One(version) if version.log == log => {
                let Self::One(version) = std::mem::replace(self, Self::Many(Vec::new())) else {
                    unreachable!("it was just matched");
                };
                (Some(version), true)
            }
            Self::One(_) => (None, false),
            Self::Many(versions) => {
                let found = versions.iter().position(|version| version.log == log);
                let taken = found.map(|at| versions.swap_remove(at));
                (taken, versions.is_empty())
            }
        }
    }
}
