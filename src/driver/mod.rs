//! Drivers: the contract every network driver keeps, the registry they are found in, and the built-in ones.
//!
//! A driver hears of a network by [`Driver::create_network`] and answers with the tables it is interested in; from then on
//! it is told of every entry that other nodes have in them. Table entries it returns from [`Driver::join`] live exactly as
//! long as the endpoint does, without the driver doing anything: whoever calls it publishes them and takes them back.

mod allocator;
mod contract;
mod ipam;
mod null;
mod overlay;
mod registry;
mod remote;
mod sandbox;
mod view;

pub use allocator::{Agreed, Allocation, NetworkAllocator, Options};
pub use contract::{
    Capability, Decoded, Driver, DriverError, EventBatch, InterfaceName, Joined, NodePlace,
    ObjectType, ObjectTypeError, Position, Progress, Route, SandboxPlace, Scope, TableEvent,
    TableInterest,
};
pub use ipam::{
    AddressRequest, IpamCapability, IpamDriver, IpamError, Pool, PoolRequest, Spaces, pick_pool,
};
pub use null::Null;
pub use overlay::Overlay;
pub use registry::{
    DEFAULT_IPAM, DriverSource, Found, Kind, NOT_FOUND_FOR, NULL_IPAM, Notify, Origin, Registry,
    RegistryError, SOURCE_DEADLINE, SourceError, Veto,
};
pub use remote::{Plugins, Remote, RemoteIpam};
pub use view::{DataplaneView, Reconciled, Why};

pub use crate::plugin::{Health as PluginHealth, Listed as PluginListed, Origin as PluginOrigin};
