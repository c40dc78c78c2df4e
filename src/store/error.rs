//! Why the store did not do as asked, and who must act.

use std::{io, path::PathBuf};

/// Why the data file could not be opened, read or written. Whatever failed, nothing was half written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator started a second daemon on one data directory.
    #[error(
        "{} is in use: another weft daemon runs on this data directory; stop it, or choose another --data-dir",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk, or somebody, changed the file.
    #[error(
        "{} is damaged ({detail}): restore it from a backup, or move it away and let the node join anew",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The operator named a file that is something else.
    #[error(
        "{} is no weft data file: move it away, or choose another --data-dir",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another version of the program wrote the file.
    #[error(
        "{} has format {found}, this version of weft reads format {expected}: use the version that wrote it, or one that converts it",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// Ours.
        expected: u16,
    },
    /// The operator must make room. Writing goes on by itself then.
    #[error("no space is left on the disk for {}: make room", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The operator must run the daemon as another user, or change the file's mode.
    #[error(
        "no permission to read and write {}: run as its owner, or choose another --data-dir",
        path.display()
    )]
    Denied {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed in another way.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An error of the database, before it is known which file it is about.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The system refused.
    Io(io::Error),
    /// The bytes are not what was written.
    Corrupt(String),
    /// An earlier write failed, and the database wants to be opened again first.
    Latched,
    /// Somebody else has the file.
    InUse,
}

impl Fault {
    /// Returns the error that says who must act.
    pub(super) fn at(self, path: PathBuf) -> StoreError {
        match self {
            Self::InUse => StoreError::InUse { path },
            Self::Corrupt(detail) => StoreError::Corrupt { path, detail },
            Self::Latched => StoreError::Io {
                path,
                source: io::Error::other("an earlier write failed"),
            },
            Self::Io(source) if is_full(source.kind()) => StoreError::Full { path },
            Self::Io(source) if is_denied(source.kind()) => StoreError::Denied { path },
            Self::Io(source) => StoreError::Io { path, source },
        }
    }
}

fn is_full(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn is_denied(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        if let redb::Error::Io(source) = error {
            // redb reads past the end of a file that was cut off.
            return if source.kind() == io::ErrorKind::UnexpectedEof {
                Self::Corrupt("it is cut off".to_owned())
            } else if source.kind() == io::ErrorKind::InvalidData {
                Self::Corrupt(source.to_string())
            } else {
                Self::Io(source)
            };
        }
        if matches!(error, redb::Error::PreviousIo | redb::Error::DatabaseClosed) {
            Self::Latched
        } else if matches!(error, redb::Error::DatabaseAlreadyOpen) {
            Self::InUse
        } else {
            Self::Corrupt(error.to_string())
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);

impl From<crate::core::wire::codec::CodecError> for Fault {
    fn from(error: crate::core::wire::codec::CodecError) -> Self {
        Self::Corrupt(error.to_string())
    }
}
