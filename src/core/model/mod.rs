//! The words every room speaks: ids, time, addresses, names, and the records that travel between rooms.
//!
//! Each type is parsed once, at the door, and trusted from then on.

mod id;
mod label;
mod mutation;
mod name;
mod net;
mod record;
mod scatter;
mod time;

pub use id::{Boot, ClusterId, EndpointId, Generation, IdError, NetworkId, NodeId};
pub use label::{Label, LabelChange, LabelError, Labels};
pub use mutation::{Mutated, Mutation};
pub use name::{Key, LimitError, Name, TableName, Value};
pub use net::{Family, Mac, MacError, Prefix, Vni, Vtep};
pub use record::{
    BlockRecord, CAPABILITIES_TABLE, CapabilitiesRecord, Dot, EndpointRecord, LABELS_TABLE,
    LabelsRecord, NAMES_TABLE, NamesRecord, NetworkRecord, NodeRecord, PeerRecord, Subnet,
    TableEntry,
};
pub(crate) use scatter::{mix, place};
pub use time::{Hlc, Instant, Now, UnixMillis};
