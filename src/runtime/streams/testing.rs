//! What the tests of streams and joining share: clusters, listening nodes, raw connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use rustls::pki_types::UnixTime;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{Caller, Dialer, Handler, Limits, Refusal, Service, Tls, serve_within};
use crate::{
    core::model::{ClusterId, NodeId, UnixMillis},
    runtime::trust::{Ca, CertifiedName, Credentials, NodeKey, VALID_FOR},
};

/// Long enough for a busy machine, short enough to fail.
pub(in crate::runtime) const PATIENCE: Duration = Duration::from_secs(20);

pub(in crate::runtime) fn now() -> UnixMillis {
    UnixMillis(UnixTime::now().as_secs() * 1000)
}

/// A cluster: its authority and its id.
pub(in crate::runtime) struct Cluster {
    pub(in crate::runtime) id: ClusterId,
    pub(in crate::runtime) ca: Ca,
}

impl Cluster {
    pub(in crate::runtime) fn new(id: u128) -> Self {
        let id = ClusterId(id);
        Self {
            id,
            ca: Ca::create(id).unwrap(),
        }
    }

    pub(in crate::runtime) fn credentials_at(&self, node: u64, now: UnixMillis) -> Credentials {
        let node = NodeId(node);
        let key = NodeKey::generate().unwrap();
        let csr = key.csr(node).unwrap();
        let cluster = self.id;
        let name = CertifiedName { node, cluster };
        let cert = self.ca.sign(&csr, name, (now, VALID_FOR)).unwrap();
        key.certified(self.ca.cert_der.clone(), cert).unwrap()
    }

    pub(in crate::runtime) fn credentials(&self, node: u64) -> Credentials {
        self.credentials_at(node, now())
    }

    pub(in crate::runtime) fn tls(&self, node: u64) -> Tls {
        Tls::new(&self.credentials(node)).unwrap()
    }

    pub(in crate::runtime) fn dialer(&self, node: u64) -> Dialer {
        Dialer::new(self.tls(node), &Limits::default())
    }
}

/// A handler made of a function.
pub(in crate::runtime) struct Answer<F>(pub(in crate::runtime) F);

impl<F> Handler for Answer<F>
where
    F: Fn(Caller, Service, Bytes) -> Result<Bytes, Refusal> + Send + Sync + 'static,
{
    fn call(
        &self,
        caller: Caller,
        service: Service,
        request: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        std::future::ready((self.0)(caller, service, request)).boxed()
    }
}

/// A node that listens on a free port until it is dropped.
pub(in crate::runtime) struct Listening {
    pub(in crate::runtime) addr: SocketAddr,
    pub(in crate::runtime) tls: Tls,
    pub(in crate::runtime) shutdown: CancellationToken,
    pub(in crate::runtime) served: JoinSet<()>,
}

impl Listening {
    pub(in crate::runtime) async fn start(tls: Tls, handler: impl Handler, limits: Limits) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), tls, handler, limits).await
    }

    pub(in crate::runtime) async fn start_at(
        addr: SocketAddr,
        tls: Tls,
        handler: impl Handler,
        limits: Limits,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let mut served = JoinSet::new();
        served.spawn(serve_within(
            listener,
            tls.clone(),
            Arc::new(handler),
            limits,
            shutdown.clone(),
        ));
        Self {
            addr,
            tls,
            shutdown,
            served,
        }
    }

    /// Starts a node that sends back what it gets.
    pub(in crate::runtime) async fn echo(tls: Tls, limits: Limits) -> Self {
        Self::start(tls, Answer(|_, _, request| Ok(request)), limits).await
    }

    /// Hangs up on everybody.
    pub(in crate::runtime) async fn stop(mut self) {
        self.shutdown.cancel();
        while self.served.join_next().await.is_some() {}
    }
}

/// Opens a connection of a member's, to say on it what no member says.
pub(in crate::runtime) async fn raw(from: &Tls, to: &Listening) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(to.addr).await.unwrap();
    let name = from.server_name(to.tls.node());
    from.connector().0.connect(name, stream).await.unwrap()
}

/// Waits until `true_now` says so.
pub(in crate::runtime) async fn until(true_now: impl Fn() -> bool) {
    let waiting = async {
        while !true_now() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("it does not come true");
}
