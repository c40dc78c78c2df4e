//! The calling side: calls by node and address, over connections that are kept for a while.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{BODY_MAX, Connection, Limits, Service, StreamError, Tls};
use crate::core::model::NodeId;

/// How often the log is told that a member and this node do not know each other, at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Calls other nodes. Cheap to clone; all clones share their connections.
#[derive(Clone, Debug)]
pub struct Dialer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tls: Tls,
    pool: Arc<Mutex<Pool>>,
    /// When it was last said that a member and this node do not know each other.
    told: Mutex<Option<Instant>>,
    /// One for each service, so that slow proposals cannot hold up the leader's heartbeats.
    permits: [Semaphore; Service::ALL.len()],
    /// Ends with the last clone.
    _reaper: JoinSet<()>,
}

impl Dialer {
    /// Makes a dialer. Must be called within a Tokio runtime, on which it closes idle connections.
    pub fn new(tls: Tls, limits: &Limits) -> Self {
        let pool = Arc::new(Mutex::new(Pool {
            per_node: limits.idle_per_node,
            in_all: limits.idle_in_all,
            idle_for: limits.idle_for,
            idle: BTreeMap::new(),
        }));
        let mut reaper = JoinSet::new();
        reaper.spawn(reap(Arc::clone(&pool), limits.idle_for));
        Self {
            shared: Arc::new(Shared {
                tls,
                pool,
                told: Mutex::default(),
                permits: Service::ALL.map(|_| Semaphore::new(limits.calls)),
                _reaper: reaper,
            }),
        }
    }

    /// Sends `request` to the node `to` at `addr` and returns its answer.
    ///
    /// A request on a kept connection that breaks is sent once more on a new one, so the called service must bear to
    /// get it twice. When as many calls of the service as allowed are under way, it waits for its turn.
    #[expect(clippy::too_many_arguments, reason = "five, and the dialer")]
    pub async fn call(
        &self,
        to: NodeId,
        addr: SocketAddr,
        service: Service,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, StreamError> {
        if request.len() > BODY_MAX {
            return Err(StreamError::TooLarge {
                len: request.len(),
                limit: BODY_MAX,
            });
        }
        let sent = AtomicBool::new(false);
        let call = self.call_in_turn((to, addr), (service, &request), &sent);
        let answer = match tokio::time::timeout(deadline, call).await {
            Ok(answer) => answer,
            Err(_late) if sent.load(Ordering::Relaxed) => Err(StreamError::Late { addr, deadline }),
            Err(_late) => Err(StreamError::NotSent { addr, deadline }),
        };
        if let Err(
            error @ (StreamError::ForeignCluster { .. } | StreamError::CertificateRefused { .. }),
        ) = &answer
            && self.may_tell()
        {
            tracing::warn!(node = %to, %error, "a member and this node do not know each other");
        }
        answer
    }

    /// Every call may fail so, so it is said once in a while.
    fn may_tell(&self) -> bool {
        with(&self.shared.told, |told| {
            let now = Instant::now();
            let is_due = told.is_none_or(|told| now - told >= TELL_EVERY);
            if is_due {
                *told = Some(now);
            }
            is_due
        })
    }

    /// Returns how many idle connections are kept.
    pub fn idle(&self) -> usize {
        with(&self.shared.pool, |pool| pool.len())
    }

    async fn call_in_turn(
        &self,
        whom: Whom,
        (service, request): (Service, &[u8]),
        sent: &AtomicBool,
    ) -> Result<Bytes, StreamError> {
        let shared = &*self.shared;
        let _permit = shared.permits[service as usize - 1]
            .acquire()
            .await
            .expect("nobody closes the semaphore");
        while let Some(mut connection) = with(&shared.pool, |pool| pool.take(whom)) {
            // One that was made with former credentials goes, so none outlives the certificate that it was made with.
            if connection.epoch() != shared.tls.epoch() || !connection.is_open() {
                continue;
            }
            shared.tls.counters().reused();
            sent.store(true, Ordering::Relaxed);
            match connection.call(service, request).await {
                // The server closed it at the moment we wrote, most likely because it restarted.
                Err(StreamError::Lost { .. }) => break,
                answer => return self.finish(whom, connection, answer),
            }
        }
        let (to, addr) = whom;
        let name = shared.tls.server_name(to);
        let counters = shared.tls.counters();
        let opened = Connection::open(addr, shared.tls.connector(), name, counters).await;
        let mut connection = match opened {
            Ok(connection) => connection,
            // The kept connection may have broken after the request was through.
            Err(error) if sent.load(Ordering::Relaxed) => {
                let reason = error.to_string();
                return Err(StreamError::Lost { addr, reason });
            }
            Err(StreamError::Lost { addr, reason }) => {
                let source = io::Error::other(reason);
                return Err(StreamError::Unreachable { addr, source });
            }
            Err(error) => return Err(error),
        };
        sent.store(true, Ordering::Relaxed);
        let answer = connection.call(service, request).await;
        self.finish(whom, connection, answer)
    }

    /// Keeps the connection if the answer has left it in order.
    fn finish(
        &self,
        whom: Whom,
        connection: Connection,
        answer: Result<Bytes, StreamError>,
    ) -> Result<Bytes, StreamError> {
        if matches!(answer, Ok(_) | Err(StreamError::Refused(_))) {
            let now = Instant::now();
            with(&self.shared.pool, |pool| pool.keep(whom, connection, now));
        }
        answer
    }
}

type Whom = (NodeId, SocketAddr);

/// The idle connections, those of a node from the longest idle to the latest used.
#[derive(Debug)]
struct Pool {
    per_node: usize,
    in_all: usize,
    idle_for: Duration,
    idle: BTreeMap<Whom, Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    fn len(&self) -> usize {
        self.idle.values().map(Vec::len).sum()
    }

    fn take(&mut self, whom: Whom) -> Option<Connection> {
        let idle = self.idle.get_mut(&whom)?;
        let taken = idle.pop();
        if idle.is_empty() {
            self.idle.remove(&whom);
        }
        Some(taken?.connection)
    }

    fn keep(&mut self, whom: Whom, connection: Connection, now: Instant) {
        if self.idle.get(&whom).map_or(0, Vec::len) >= self.per_node {
            return;
        }
        if self.len() >= self.in_all {
            self.close_oldest();
        }
        self.idle.entry(whom).or_default().push(Idle {
            connection,
            since: now,
        });
    }

    fn close_oldest(&mut self) {
        let oldest = self
            .idle
            .iter()
            .filter_map(|(whom, idle)| Some((idle.first()?.since, *whom)))
            .min();
        let Some((_, whom)) = oldest else { return };
        if let Some(idle) = self.idle.get_mut(&whom) {
            idle.remove(0);
        }
        self.idle.retain(|_, idle| !idle.is_empty());
    }

    fn expire(&mut self, now: Instant) {
        let idle_for = self.idle_for;
        self.idle.retain(|_, idle| {
            idle.retain_mut(|idle| now - idle.since < idle_for && idle.connection.is_open());
            !idle.is_empty()
        });
    }
}

/// Runs `work` on what is shared. Nothing in it waits or can panic halfway, so what is poisoned is as good as any.
fn with<P, T>(shared: &Mutex<P>, work: impl FnOnce(&mut P) -> T) -> T {
    work(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn reap(pool: Arc<Mutex<Pool>>, idle_for: Duration) {
    loop {
        tokio::time::sleep(idle_for / 6).await;
        with(&pool, |pool| pool.expire(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::streams::testing::{Cluster, Listening, PATIENCE, until};

    #[tokio::test]
    async fn an_idle_connection_is_closed_after_its_time() {
        let (cluster, server) = served(2).await;
        let dialer = cluster.dialer(5);
        call(&dialer, &server).await;
        let limits = Limits::default();
        let shortly_before = Instant::now() + limits.idle_for - Duration::from_secs(1);

        with(&dialer.shared.pool, |pool| pool.expire(shortly_before));
        let kept = dialer.idle();
        let after = Instant::now() + limits.idle_for;
        with(&dialer.shared.pool, |pool| pool.expire(after));

        assert_eq!((kept, dialer.idle()), (1, 0));
        until(|| server.tls.stats().open == 0).await;
    }

    #[tokio::test]
    async fn idle_connections_are_closed_without_a_call() {
        let (cluster, server) = served(2).await;
        let limits = Limits {
            idle_for: Duration::from_millis(30),
            ..Limits::default()
        };
        let dialer = Dialer::new(cluster.tls(5), &limits);

        call(&dialer, &server).await;

        until(|| dialer.idle() == 0).await;
        until(|| server.tls.stats().open == 0).await;
    }

    #[tokio::test]
    async fn a_connection_beyond_all_that_are_kept_replaces_the_longest_idle_one() {
        let (cluster, first) = served(2).await;
        let limits = Limits {
            idle_in_all: 2,
            ..Limits::default()
        };
        let dialer = Dialer::new(cluster.tls(5), &limits);
        let second = Listening::echo(cluster.tls(3), Limits::default()).await;
        let third = Listening::echo(cluster.tls(4), Limits::default()).await;

        for server in [&first, &second, &third] {
            call(&dialer, server).await;
        }

        assert_eq!(dialer.idle(), 2);
        until(|| first.tls.stats().open == 0).await;
        assert_eq!(second.tls.stats().open, 1);
        assert_eq!(third.tls.stats().open, 1);
    }

    #[tokio::test]
    async fn the_last_clone_takes_the_connections_along() {
        let (cluster, server) = served(2).await;
        let dialer = cluster.dialer(5);
        call(&dialer.clone(), &server).await;
        assert_eq!(server.tls.stats().open, 1);

        drop(dialer);

        until(|| server.tls.stats().open == 0).await;
    }

    async fn served(node: u64) -> (Cluster, Listening) {
        let cluster = Cluster::new(1);
        let server = Listening::echo(cluster.tls(node), Limits::default()).await;
        (cluster, server)
    }

    async fn call(dialer: &Dialer, server: &Listening) {
        let (to, addr) = (server.tls.node(), server.addr);
        let answer = dialer.call(to, addr, Service::Raft, Bytes::new(), PATIENCE);
        answer.await.unwrap();
    }
}
