//! What must hold of addresses, one file a property.

mod heard;
mod holders;
mod leases;
mod rested;
mod vnis;

use super::Violation;
pub use heard::heard;
pub use holders::Holders;
pub use leases::leases;
pub use rested::Rested;
pub use vnis::vnis;

/// What is noted while a run goes on.
#[derive(Default, Debug)]
pub struct Checks {
    /// Who has which address.
    pub holders: Holders,
    /// When an address was given up last.
    pub rested: Rested,
}
