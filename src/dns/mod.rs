//! Names of endpoints: `<endpoint>.<network>` as A and AAAA, their addresses as PTR.
//!
//! **Invariant:** only names of networks that are known here are answered, with authority. Everything else is refused,
//! so a resolver asks its next server; what is not ours is never said not to exist.

mod answer;
mod follower;
mod server;
mod table;

use std::net::IpAddr;

pub use answer::{TTL, Transport, answer};
pub use follower::run;
pub use server::serve;
pub use table::NameTable;

/// What names there are. Names compare without regard to ASCII case (RFC 4343).
pub trait Names {
    /// Returns whether there is a network of this name.
    fn has_network(&self, network: &str) -> bool;

    /// Returns the addresses of the endpoints of this name in the network; nothing if there is no such endpoint.
    fn addresses(&self, endpoint: &str, network: &str) -> Option<Vec<IpAddr>>;

    /// Returns the names, `<endpoint>.<network>`, that have this address; nothing if it belongs to no network.
    fn names(&self, address: IpAddr) -> Option<Vec<String>>;
}
