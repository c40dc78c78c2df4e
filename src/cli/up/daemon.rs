//! The daemon: its rooms, started in the order in which they need each other and stopped in the reverse order.
//!
//! ```text
//! store ─► loop (UDP) ─► agreement ─► drivers ─► controller ─► streams (TCP) ─► control API, Docker, DNS
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Up,
    doors::{Doors, Plugin},
    drivers,
    member::Member,
    others,
};
use crate::{
    api::{
        docker,
        http::{
            self,
            types::{Code, Failure},
        },
    },
    cli::{
        error::CliError,
        init::{self, VOTERS},
    },
    config::{Config, Host, Profile},
    controller::{Controller, Lives, Parts, Streams},
    core::{model::Vtep, netdb, node, wire::lifetime::Standing},
    dns::{self, Upstream},
    driver::Overlay,
    engine::{self, Bell},
    raft::{ClusterLog, Raft, RaftConfig, Timings},
    runtime::{
        self, Handle, Sockets,
        clock::{self, Clock},
        streams::{self, Dialer, Limits, Tls},
    },
    store::Store,
};

/// How long a node that has left goes on serving, so that everybody hears of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long everything may take to stop.
const STOP_MAX: Duration = Duration::from_secs(15);
/// How long a node whose certificate has run out looks whether it votes.
const LOADED_WITHIN: Duration = Duration::from_secs(2);
/// How often it is asked whether the node is ready.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Why the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Somebody stopped it; it is still a member.
    Told,
    /// It has left the cluster.
    Left,
    /// Others have removed it from the cluster.
    Removed,
}

impl Ended {
    /// Returns whether the node is no member any more.
    fn is_for_good(self) -> bool {
        match self {
            Self::Told => false,
            Self::Left | Self::Removed => true,
        }
    }
}

/// A running node.
pub(super) struct Daemon {
    member: Member,
    socket: PathBuf,
    dns: Option<SocketAddr>,
    store: Store,
    handle: Handle,
    raft: Raft,
    controller: Controller,
    overlay: Arc<Overlay>,
    /// The engine that is followed, if one is.
    engine: Option<engine::Config>,
    /// What serves others and runs beside; each ends only when told, or badly.
    services: JoinSet<&'static str>,
    tasks: TaskTracker,
    stop_services: CancellationToken,
    /// Stops following the engine, before all other services.
    stop_following: CancellationToken,
    stop_loop: CancellationToken,
}

impl Daemon {
    /// Starts everything.
    pub(super) async fn start(
        member: Member,
        store: Store,
        sockets: Sockets,
        doors: Doors,
        config: &Config,
    ) -> Result<Self, CliError> {
        let tls = Tls::speaking(config.wire_version, &member.credentials);
        let tls = tls.map_err(anyhow::Error::from)?;
        let dialer = Dialer::new(tls.clone(), &Limits::default());
        let tasks = TaskTracker::new();
        let stop_loop = CancellationToken::new();
        let clock = Clock::start();
        let remembered = others::remembered(&store)?;
        if let Err(refused) = others::refuse_double(&dialer, &member, &remembered).await {
            drivers::clear_if_removed(config, &refused, doors.docker).await;
            return Err(refused);
        }
        let node = node_config(&member, &store, config)?;
        let (handle, _ended) =
            runtime::start(node, sockets.udp, dialer.clone(), &tasks, stop_loop.clone());
        others::recall(&handle, remembered).await?;
        let streams = Streams::new(handle.clone(), dialer.clone());
        let removed = streams.removed();
        let (raft, cluster_log) =
            start_raft(&member, &store, streams, timings(config.profile)).await?;
        let vtep = Vtep(member.address.ip());
        let overlay = Arc::new(drivers::overlay(config, &store, vtep).await?);
        let own = config.plugin_dir.as_deref();
        let plugins = drivers::plugins(&Host::here(), own, config.docker.as_ref());
        let controller = Controller::new(Parts {
            node: member.identity.node,
            name: member.identity.name.clone(),
            labels: config.labels.clone(),
            capabilities: drivers::capabilities(config, &overlay),
            cluster: member.identity.cluster,
            handle: handle.clone(),
            raft: raft.clone(),
            store: store.clone(),
            registry: Arc::new(drivers::registry(overlay.clone(), plugins)),
            dialer: dialer.clone(),
            tls: tls.clone(),
            lives: lives(config),
            clock,
        });
        refuse_if_run_out(&tls, &controller, &raft).await?;
        let stop_services = CancellationToken::new();
        let mut daemon = Self {
            member,
            socket: doors.control.path().to_owned(),
            dns: doors.dns.as_ref().map(|sockets| sockets.addr),
            store,
            handle,
            raft,
            controller,
            overlay,
            engine: None,
            services: JoinSet::new(),
            tasks,
            stop_following: stop_services.child_token(),
            stop_services,
            stop_loop,
        };
        let handler = Arc::new(daemon.controller.clone());
        let streams = streams::serve(sockets.tcp, tls.clone(), handler, daemon.stop_loop.clone());
        daemon.serve("the streams", streams);
        daemon.open(doors, tls, config);
        daemon.run_beside(cluster_log, removed);
        daemon.tasks.spawn(others::find_again(
            daemon.handle.clone(),
            dialer,
            config.join.clone(),
            daemon.stop_services.clone(),
        ));
        Ok(daemon)
    }

    fn open(&mut self, doors: Doors, tls: Tls, config: &Config) {
        let stop = self.stop_services.clone();
        let routes = http::routes(self.controller.clone(), tls, stop.clone());
        let served = http::serve(doors.control, routes, stop.clone());
        self.serve("the control API", served);
        let (told, askers) = watch::channel(Default::default());
        if let Some(Plugin { door, engine }) = doors.docker {
            let (bell, controller) = (Bell::default(), self.controller.clone());
            let served = docker::serve(door, controller.clone(), bell.clone(), stop.clone());
            self.serve("the Docker plugin", served);
            self.engine = Some(engine.clone());
            let stop = self.stop_following.clone();
            let followed = engine::run(engine, controller, (bell, told), stop);
            self.serve("the Docker engine's follower", followed);
        }
        if let Some(sockets) = doors.dns {
            let ours = sockets.addr;
            let upstream = match &config.dns_upstream {
                Some(servers) => Upstream::these(servers.clone(), ours),
                None => Upstream::of_host(ours),
            };
            let handle = self.handle.clone();
            let ttl = config.dns_ttl.map_or(dns::TTL, |ttl| ttl.0);
            let answered = dns::run(
                handle,
                sockets,
                (askers, upstream, ttl),
                self.controller.fed(),
                stop,
            );
            self.serve("DNS", answered);
        }
    }

    fn serve(&mut self, name: &'static str, service: impl Future<Output = ()> + Send + 'static) {
        self.services.spawn(async move {
            service.await;
            name
        });
    }

    fn run_beside(&mut self, cluster_log: mpsc::Receiver<ClusterLog>, removed: CancellationToken) {
        let refusals = self.controller.clone().follow_refusals(removed);
        let stop = self.stop_services.clone();
        self.tasks
            .spawn(async move { stop.run_until_cancelled(refusals).await });
        let (stop, overlay) = (self.stop_services.clone(), self.overlay.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = overlay.keep() => {}
                () = stop.cancelled() => {}
            }
        });
        let run = self
            .controller
            .clone()
            .run(cluster_log, self.stop_services.clone());
        self.serve("the controller", async {
            if let Err(error) = run.await {
                tracing::error!(%error, "the controller failed");
            }
        });
        self.tasks.spawn(others::remember(
            self.handle.clone(),
            self.store.clone(),
            self.stop_services.clone(),
        ));
    }

    /// Returns what to say once the node is up.
    pub(super) fn up(&self) -> Up<'_> {
        Up {
            node: self.member.identity.node,
            name: &self.member.identity.name,
            cluster: self.member.identity.cluster,
            address: self.member.address,
            socket: self.socket.clone(),
            dns: self.dns,
        }
    }

    /// Waits until what the node brings back from disk is in the DB.
    pub(super) async fn until_ready(&self) -> Result<(), CliError> {
        loop {
            let members = self.controller.members().await;
            let members = members.map_err(anyhow::Error::from)?;
            let ours = members.iter().find(|view| view.member.ours);
            if ours.is_some_and(|view| view.name.is_some()) {
                return Ok(());
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Writes the token for newcomers, if nobody has.
    pub(super) async fn offer_token(&self, path: &Path) {
        if path.exists() {
            return;
        }
        let offered = async {
            let token = self.controller.token(false).await;
            init::write_token(path, &token.map_err(anyhow::Error::from)?)
        };
        if let Err(error) = offered.await {
            tracing::warn!(%error, "no token file for newcomers");
        }
    }

    /// Waits until the node has left, or something of it has ended that should not.
    pub(super) async fn until_ended(&mut self) -> Result<Ended, CliError> {
        tokio::select! {
            () = self.controller.left() => {
                tracing::info!("this node has left the cluster");
                Ok(Ended::Left)
            }
            () = self.controller.expelled() => {
                tracing::info!("others have removed this node: its networks are taken out of this host");
                Ok(Ended::Removed)
            }
            Some(ended) = self.services.join_next() => {
                let what = ended.unwrap_or("a service that panicked");
                Err(anyhow::anyhow!("{what} ended by itself: see the log").into())
            }
        }
    }

    /// Stops everything: first what others ask of this node, last its loop. A leader hands over.
    pub(super) async fn stop(self, ended: Ended) -> Result<(), CliError> {
        let store = self.store.clone();
        if timeout(STOP_MAX, self.stop_in_order(ended)).await.is_err() {
            tracing::warn!("not everything has stopped in time; the disk is whole all the same");
        }
        if ended == Ended::Left {
            // What ended last may have written.
            store.clear()?;
        }
        match ended {
            Ended::Told | Ended::Left => Ok(()),
            Ended::Removed => Err(others::removed()),
        }
    }

    async fn stop_in_order(mut self, ended: Ended) {
        if ended.is_for_good() {
            self.leave_engine().await;
        }
        self.stop_services.cancel();
        match ended {
            Ended::Told => {}
            Ended::Left => {
                // Drivers were told before the disk was cleared.
                sleep(FAREWELL).await;
                self.overlay.clear().await;
            }
            Ended::Removed => {
                self.controller.withdraw_from_drivers().await;
                self.overlay.clear().await;
            }
        }
        self.raft.shutdown().await;
        self.stop_loop.cancel();
        while self.services.join_next().await.is_some() {}
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes this node's networks out of the engine, while the plugin is served that the engine asks for it.
    async fn leave_engine(&mut self) {
        self.stop_following.cancel();
        if let Some(engine) = &self.engine {
            engine::withdraw(engine).await;
        }
    }
}

fn lives(config: &Config) -> Lives {
    let lives = Lives::default();
    let rotation = config.key_rotation.map(|rotation| rotation.0);
    Lives {
        certificate: init::life(config),
        datagram_key: rotation.unwrap_or(lives.datagram_key),
    }
}

/// A certificate that has run out proves nothing, so the node would wait for ever. Who votes can sign another one.
async fn refuse_if_run_out(
    tls: &Tls,
    controller: &Controller,
    raft: &Raft,
) -> Result<(), CliError> {
    let (validity, now) = (tls.validity(), clock::wall());
    if validity.standing(now) != Standing::RunOut {
        return Ok(());
    }
    // A disk that is full may keep it from answering.
    let _late = timeout(LOADED_WITHIN, raft.until_loaded()).await;
    if controller.holds_authority() {
        return Ok(());
    }
    let since = Duration::from_secs((now.0 - validity.until.0) / 1000);
    let message = format!(
        "this node's certificate ran out {since:?} ago, by the clock of this host: if the clock is right, start it with --join HOST:PORT --token TOKEN, where `weft token` on a member shows the token; the node stays who it is"
    );
    Err(Failure::new(Code::CertificateExpired, message).into())
}

fn node_config(member: &Member, store: &Store, config: &Config) -> Result<node::Config, CliError> {
    let (generation, boot) = store.start(clock::wall().0 / 1_000)?;
    let netdb = match config.profile {
        Profile::Lan | Profile::Local => netdb::Config::lan(),
        Profile::Wan => netdb::Config::wan(),
    };
    Ok(node::Config {
        cluster: member.identity.cluster,
        node: member.identity.node,
        addr: member.address,
        boot,
        generation,
        keyring: member.identity.ring.keys.clone(),
        newest: config.wire_version,
        membership: config.membership.clone(),
        netdb,
        seed: clock::seed(),
    })
}

/// A node whose death goes unnoticed for longer must be up for longer before it gets a vote; and as a call must be through within a
/// third of the lease, on a new connection after three round trips, there is more time for it on links of many miles.
fn timings(profile: Profile) -> Timings {
    let timings = Timings::default();
    match profile {
        Profile::Lan | Profile::Local => timings,
        Profile::Wan => Timings {
            lease: Duration::from_secs(3),
            turn: Duration::from_millis(450),
            voter_settled: Duration::from_secs(15),
            ..timings
        },
    }
}

async fn start_raft(
    member: &Member,
    store: &Store,
    streams: Streams,
    timings: Timings,
) -> Result<(Raft, mpsc::Receiver<ClusterLog>), CliError> {
    let config = RaftConfig {
        node: member.identity.node,
        store: store.clone(),
        transport: Arc::new(streams),
        clock: Arc::new(clock::wall),
        seed: clock::seed(),
        timings,
        voters: VOTERS,
    };
    Ok(Raft::start(config).await.map_err(anyhow::Error::from)?)
}
