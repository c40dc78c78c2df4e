//! Fault points: where a test has the process die, as by SIGKILL, around a write of this node's endpoints and entries.
//!
//! Only the feature `mutations` can set one; without it passing a point is nothing.

#[cfg(feature = "mutations")]
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

/// On which side of a write's commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Nothing of it is on the disk.
    Before,
    /// All of it is on the disk, and nobody was told.
    After,
}

/// How many writes were passed, and at which the process dies. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultPoint {
    #[cfg(feature = "mutations")]
    passed: [Arc<AtomicU32>; 2],
    #[cfg(feature = "mutations")]
    at: Arc<Mutex<Option<(Side, u32)>>>,
}

impl FaultPoint {
    /// Has the process die at one side of the n-th write from now on.
    #[cfg(feature = "mutations")]
    pub(super) fn set(&self, side: Side, write: u32) {
        for passed in &self.passed {
            passed.store(0, Ordering::SeqCst);
        }
        *self.at.lock().expect("nobody panics with it") = Some((side, write));
    }

    /// Passes one side of a write.
    #[cfg(feature = "mutations")]
    pub(super) fn pass(&self, side: Side) {
        let passed = match side {
            Side::Before => &self.passed[0],
            Side::After => &self.passed[1],
        };
        let write = passed.fetch_add(1, Ordering::SeqCst) + 1;
        if *self.at.lock().expect("nobody panics with it") == Some((side, write)) {
            std::process::abort();
        }
    }

    /// Passes one side of a write.
    #[cfg(not(feature = "mutations"))]
    pub(super) fn pass(&self, _side: Side) {}
}
