//! Names of endpoints: `<endpoint>.<network>`, or `<endpoint>` alone, as A and AAAA, their addresses as PTR.
//!
//! Several endpoints of one name are answered in turn. A name alone is looked for in the networks of the container that asks,
//! where the asker is known, and else in all.
//!
//! **Invariant:** only names that are known here, and names of networks that are, are answered with authority. Everything else
//! is passed on to the host's resolvers, in a bounded number and time, and refused where there are none, so that a resolver
//! asks its next server; what is not ours is never said not to exist.

mod answer;
mod follower;
mod server;
mod table;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub use answer::{Answered, Asked, TTL, Transport, answer};
pub use follower::run;
pub use server::{Service, serve};
pub use table::NameTable;
pub use upstream::Upstream;

use crate::core::model::NetworkId;

/// The networks of who asks, by the address from which it does.
pub type Askers = BTreeMap<IpAddr, BTreeSet<NetworkId>>;

/// Through which revision of the node's history the ways to a network's endpoints are laid. A network to whose endpoints nobody
/// lays ways is not in it.
pub type Laid = BTreeMap<NetworkId, u64>;

/// What names there are. Names compare without regard to ASCII case (RFC 4343).
pub trait Names {
    /// Returns whether there is a network of this name.
    fn has_network(&self, network: &str) -> bool;

    /// Returns the addresses of the endpoints of this name in the network; nothing if there is no such endpoint.
    fn addresses(&self, endpoint: &str, network: &str) -> Option<Vec<IpAddr>>;

    /// Returns the addresses of the endpoints of this name in these networks, or in all; nothing if there is no such
    /// endpoint.
    fn anywhere(
        &self,
        endpoint: &str,
        networks: Option<&BTreeSet<NetworkId>>,
    ) -> Option<Vec<IpAddr>>;

    /// Returns the network that an address belongs to.
    fn network_of(&self, address: IpAddr) -> Option<NetworkId>;

    /// Returns the names, `<endpoint>.<network>`, that have this address; nothing if it belongs to no network.
    fn names(&self, address: IpAddr) -> Option<Vec<String>>;
}
