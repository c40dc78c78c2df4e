//! What the fuzz targets share: a node among peers that lie, their messages, and what must hold whatever they say.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

#[cfg(feature = "daemon")]
pub mod authority;
#[cfg(feature = "daemon")]
pub mod daemon_seeds;
pub mod message;
pub mod script;
pub mod seeds;
pub mod world;

/// Runs what never waits.
///
/// # Panics
///
/// It waits.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("there is nothing to wait for"),
    }
}
