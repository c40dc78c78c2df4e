//! The loop: one task that owns the node, reads the socket, the commands and the clock, and sends what the node says.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    clock::Clock,
    handle::{self, Command, Handle, SyncStates},
    streams::{Dialer, Service, StreamError},
};
use crate::core::{
    netdb::{Applied, BarrierId, CallId},
    node::{Config, Event, Node},
};

/// How many commands wait for the loop; whoever finds the queue full waits.
const COMMANDS_MAX: usize = 1024;
/// How many commands or datagrams are taken before what they made is sent, so that it shares datagrams.
const BATCH: usize = 128;
/// How many requests on streams are under way at once; more wait in the node.
const CALLS_MAX: usize = 32;
/// How long a request on a stream may take.
const CALL_FOR: Duration = Duration::from_secs(10);
/// The longest datagram read: one byte more than any we send, so that longer ones are seen to be too long.
const READ_MAX: usize = crate::core::wire::DATAGRAM_MAX + 1;

/// A request that has ended.
type Called = (CallId, Result<Bytes, StreamError>);

/// The loop's state.
pub(super) struct EventLoop {
    node: Node,
    clock: Clock,
    socket: Arc<UdpSocket>,
    dialer: Dialer,
    commands: mpsc::Receiver<Command>,
    calls: JoinSet<Called>,
    revision: watch::Sender<u64>,
    members: watch::Sender<u64>,
    /// How many transitions of members there were.
    transitions: watch::Sender<u64>,
    synced: watch::Sender<SyncStates>,
    /// Who waits for which barrier; the network DB bounds them.
    barriers: BTreeMap<BarrierId, oneshot::Sender<Applied>>,
}

impl EventLoop {
    /// Makes the loop and a handle to it.
    pub(super) fn new(config: Config, socket: UdpSocket, dialer: Dialer) -> (Self, Handle) {
        let clock = Clock::start();
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (revision, revision_seen) = watch::channel(0);
        let (members, members_seen) = watch::channel(0);
        let node = Node::new(config, clock.now());
        let (transitions, transitions_seen) = watch::channel(node.membership().revision());
        let (synced, synced_seen) = watch::channel(node.networks().collect());
        let event_loop = Self {
            node,
            clock,
            socket: Arc::new(socket),
            dialer,
            commands,
            calls: JoinSet::new(),
            revision,
            members,
            transitions,
            synced,
            barriers: BTreeMap::new(),
        };
        (
            event_loop,
            Handle {
                commands: sender,
                revision: revision_seen,
                members: members_seen,
                transitions: transitions_seen,
                synced: synced_seen,
            },
        )
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut buffer = vec![0; READ_MAX];
        loop {
            self.flush().await;
            let deadline = self.node.poll_timeout().map(|at| self.clock.to_tokio(at));
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(command) = self.commands.recv() => self.obey(command),
                Some(called) = self.calls.join_next(), if !self.calls.is_empty() => {
                    if let Ok((node, answer)) = called {
                        self.answered(node, answer);
                    }
                }
                readable = self.socket.readable() => {
                    if readable.is_ok() {
                        self.read(&mut buffer);
                    }
                }
                () = sleep => self.node.handle_timeout(self.clock.now()),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        self.obey_one(command);
        for _ in 1..BATCH {
            let Ok(command) = self.commands.try_recv() else {
                break;
            };
            self.obey_one(command);
        }
    }

    fn obey_one(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Do(f) => f(&mut self.node, now),
            Command::Carry(f) => {
                f(&mut self.node, now);
                self.show_synced();
            }
            Command::Await {
                version,
                limit,
                reply,
            } => {
                let id = self.node.applied(now, version, now.instant + limit);
                self.barriers.insert(id, reply);
            }
        }
    }

    fn show_synced(&self) {
        let states: SyncStates = self.node.networks().collect();
        self.synced.send_if_modified(|shown| {
            let differs = *shown != states;
            *shown = states;
            differs
        });
    }

    fn read(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match self.socket.try_recv_from(buffer) {
                Ok((len, from)) => {
                    let taken = self.node.handle_datagram(self.clock.now(), &buffer[..len]);
                    if let Err(error) = taken {
                        tracing::trace!(%from, %error, "datagram dropped");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A former datagram met a closed port: the kernel says so here, and membership finds out by itself.
                Err(error) => tracing::trace!(%error, "socket"),
            }
        }
    }

    fn answered(&mut self, call: CallId, answer: Result<Bytes, StreamError>) {
        let now = self.clock.now();
        match answer {
            Ok(reply) => {
                if let Err(error) = self.node.handle_stream_reply(now, call, &reply) {
                    tracing::warn!(node = %call.to, %error, "an answer on a stream was refused");
                }
            }
            Err(error) => {
                tracing::debug!(node = %call.to, %error, "a request on a stream failed");
                self.node.handle_stream_failed(now, call);
            }
        }
    }

    /// Sends what the node has to say, and tells those who wait.
    async fn flush(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            if let Err(error) = self.socket.send_to(&transmit.datagram, transmit.to).await {
                tracing::trace!(to = %transmit.to, %error, "datagram not sent");
            }
        }
        while self.calls.len() < CALLS_MAX
            && let Some(call) = self.node.poll_stream()
        {
            let Some(addr) = self.node.membership().address(call.id.to) else {
                self.node.handle_stream_failed(self.clock.now(), call.id);
                continue;
            };
            let dialer = self.dialer.clone();
            self.calls.spawn(async move {
                let request = Bytes::from(call.request);
                (
                    call.id,
                    dialer
                        .call(call.id.to, addr, Service::Sync, request, CALL_FOR)
                        .await,
                )
            });
        }
        let mut members = false;
        let mut changed = false;
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Member(event) => {
                    handle::log(&event);
                    members = true;
                }
                Event::Changed => changed = true,
                Event::Synced(network, state) => {
                    handle::log_state(network, state);
                    self.show_synced();
                }
                Event::Barrier(id, applied) => {
                    if let Some(reply) = self.barriers.remove(&id) {
                        // Whoever waited may have gone.
                        let _ = reply.send(applied);
                    }
                }
            }
        }
        if changed {
            self.revision.send_replace(self.node.revision());
        }
        if members {
            self.members.send_modify(|count| *count += 1);
        }
        let newest = self.node.membership().revision();
        self.transitions
            .send_if_modified(|seen| std::mem::replace(seen, newest) != newest);
    }
}
