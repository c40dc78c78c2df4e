//! Weft weaves the containers of many hosts into one network, without Swarm, Kubernetes or an external key-value store.
//!
//! Every host runs one program, `weft`. The hosts find each other by gossip; what each knows of its endpoints spreads through a
//! replicated network DB, whose tables network drivers subscribe to; entries live exactly as long as the endpoint that
//! brought them; and a leader, agreed by Raft, runs the one allocator of VXLAN ids, subnets and address blocks.
//!
//! ```text
//!  UDP, TCP                                                                              kernel
//!     │                                                                                    ▲
//!  runtime ─► core::wire ─► core::membership ─┐                                            │
//!     ▲        open, decode   up, down        ├─► core::netdb ─► core::watch ─► driver ─► dataplane
//!     │                                       │     apply          fan out     desired   steps(actual, desired)
//!     └── core::node::poll_transmit ◄── push ─┘       ▲                           ▲
//!                                                     │ table entries             │ join
//!                                                     └────────── endpoint ◄──────┤
//!  CLI, HTTP, Docker, CNI ─► api ─► controller ─► runtime::Handle ─► core::node
//!                                       └───────► raft ─► core::allocator ─► cluster log in core::netdb
//! ```
//!
//! Left to right is dissemination. From the bottom is a join: [`api`] parses; [`controller`] asks the leader for what must be
//! agreed, then asks the driver to join; the driver answers with table entries; [`core::netdb`] stamps them and pushes them at
//! once; every other node that has the network tells its drivers.
//!
//! # The rooms
//!
//! [`core`] decides: no socket, clock, entropy, file, task, lock or `async`. Time and chance are arguments, so the same
//! [`core::node::Node`] runs under tokio in production and by the thousand in virtual time in the simulator
//! ([`sim`]). The other rooms act. Which room may import which is one table in `src/tidy`, and a test.
//!
//! | room | what it is for |
//! |---|---|
//! | [`core::model`] | the words every room speaks |
//! | [`core::wire`] | sealed datagrams, records, codec, keyring |
//! | [`core::membership`] | who is in the cluster (SWIM, on foca) |
//! | [`core::netdb`] | what the cluster knows: logs, entries, dissemination, anti-entropy |
//! | [`core::watch`] | who hears of which change |
//! | [`core::ipam`], [`core::allocator`] | what Raft has agreed: networks, VNIs, pools, blocks, members |
//! | [`core::agreement`] | who may lead: when a voter stands, whom it would vote for |
//! | [`core::overlay`] | peer records → desired links, FDB, neighbours |
//! | [`core::node`] | one node: the rooms above, wired |
//! | [`sim`] | many nodes in virtual time, by seed |
//! | [`store`] | the one file on disk |
//! | [`runtime`] | the loop, UDP, TLS streams, trust, the join door |
//! | [`raft`] | agreement: openraft on the data file, autopilot |
//! | [`dataplane`], [`driver`], [`plugin`] | the driver contract, the registry, built-in drivers, plugins |
//! | [`controller`] | use cases |
//! | [`engine`] | keeps the Docker engine of this host in step: networks there, containers' names here |
//! | [`dns`], [`api`], [`config`], [`cli`] | doors |
//!
//! # What always holds
//!
//! - Unauthenticated bytes change no state and cause no answer ([`core::wire`]).
//! - A node writes its own entries only; an entry shows iff its owner is alive, attached, and in its newest generation
//!   ([`core::netdb`]).
//! - A deleted entry never comes back, and no clock decides that ([`core::netdb`]).
//! - An endpoint is on disk before anybody hears of it; its entries go when it goes ([`controller`]).
//! - What a network has in the kernel is in a namespace of its own: no packet of it is in another ([`dataplane`]).
//! - No two networks share a VNI, no two endpoints an address ([`core::allocator`]).
//! - Every queue has a bound, and says what happens at it.
//!
//! # Glossary
//!
//! - SWIM: *member, incarnation, probe, indirect probe, suspect, refute, down*.
//! - Network DB: *table, entry, owner, log, dot, have, floor, tombstone, push, ihave, pull, digest, anti-entropy, generation,
//!   attach epoch, converge*.
//! - Docker's container network model: *network, endpoint, sandbox, join, leave, driver, scope*.
//! - VXLAN (RFC 7348): *VNI, VTEP, FDB, neighbour, underlay, overlay*.
//! - Raft: *leader, term, propose, commit, apply, snapshot*.
//! - IPAM: *pool, subnet, address, gateway, block, reserve, release*.
//! - Watch: *watch, list, lag*; data plane: *desired, actual, step, reconcile, guard, adopt*.

pub mod core;
pub mod sim;

#[cfg(feature = "daemon")]
pub mod api;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod controller;
#[cfg(feature = "daemon")]
pub mod dataplane;
#[cfg(feature = "daemon")]
pub mod dns;
#[cfg(feature = "daemon")]
pub mod driver;
#[cfg(feature = "daemon")]
pub mod engine;
#[cfg(feature = "daemon")]
pub mod plugin;
#[cfg(feature = "daemon")]
pub mod raft;
#[cfg(feature = "daemon")]
pub mod runtime;
#[cfg(feature = "daemon")]
pub mod store;

#[cfg(test)]
mod tidy;
