//! A disk that fails on purpose: full, or without power from one operation on. Nothing on it is real.

#![expect(clippy::unwrap_in_result, reason = "a test may panic")]

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::{Database, DatabaseError, StorageBackend};

use super::{Store, StoreError, abort::FaultPoint, file::DataFile};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What the program reads: what was written, on the disk or not.
    cached: Vec<u8>,
    /// What is on the disk for certain.
    durable: Vec<u8>,
    /// What may be on the disk, or not, or in part: all since the last sync.
    pending: Vec<Change>,
    /// How many bytes may still be written; nothing: any number.
    room: Option<u64>,
    /// How many operations there may still be until the power goes; nothing: any number.
    power: Option<u64>,
    operations: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
}

/// What of the last operations is on the disk when the power has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// All of them.
    All,
    /// None of them.
    None,
    /// Every other one.
    Alternate,
    /// All but the second half of the last one.
    Torn,
}

impl FaultyDisk {
    /// Makes a disk with a file's bytes on it.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State {
            cached: bytes.clone(),
            durable: bytes,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Lets so many more bytes be written before it is full.
    pub(crate) fn set_room(&self, bytes: Option<u64>) {
        self.state().room = bytes;
    }

    /// Lets so many more operations be done before the power goes.
    pub(crate) fn set_power(&self, operations: u64) {
        self.state().power = Some(operations);
    }

    /// Returns how many operations there were that change something.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Returns what is found on it after the power has gone.
    pub(crate) fn after_power_cut(&self, kept: Kept) -> Self {
        let state = self.state();
        let mut bytes = state.durable.clone();
        let last = state.pending.len().saturating_sub(1);
        for (at, change) in state.pending.iter().enumerate() {
            match (kept, change) {
                (Kept::None, _) => {}
                (Kept::Alternate, _) if at % 2 == 1 => {}
                (Kept::Torn, Change::Write(offset, data)) if at == last => {
                    apply(
                        &mut bytes,
                        &Change::Write(*offset, data[..data.len() / 2].to_vec()),
                    );
                }
                (Kept::All | Kept::Alternate | Kept::Torn, change) => apply(&mut bytes, change),
            }
        }
        Self::holding(bytes)
    }

    /// Opens the disk as the data file of a directory that has one.
    pub(crate) fn store(&self, directory: &Path) -> Result<Store, StoreError> {
        let disk = self.clone();
        let open = move || -> Result<Database, DatabaseError> {
            Database::builder().create_with_backend(disk.clone())
        };
        Ok(Store {
            file: Arc::new(DataFile::open_with(directory, Box::new(open))?),
            fault_point: FaultPoint::default(),
        })
    }

    fn change(&self, change: Change, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        match &mut state.room {
            None => {}
            Some(left) if *left >= len => *left -= len,
            Some(_) => return Err(io::ErrorKind::StorageFull.into()),
        }
        apply(&mut state.cached, &change);
        state.pending.push(change);
        Ok(())
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.power {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let index = |at: u64| usize::try_from(at).unwrap();
    match change {
        Change::Length(len) => bytes.resize(index(*len), 0),
        Change::Write(offset, data) => {
            let (from, to) = (index(*offset), index(*offset) + data.len());
            if bytes.len() < to {
                bytes.resize(to, 0);
            }
            bytes[from..to].copy_from_slice(data);
        }
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = usize::try_from(offset).unwrap();
        let found = state.cached.get(from..from + out.len());
        let found = found.ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(self.len()?);
        self.change(Change::Length(len), more)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.durable = state.cached.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()), data.len() as u64)
    }
}
