//! Real `weft` processes: the story of a cluster, what it survives, and what it says when it refuses.

mod aborts;
mod addresses;
mod agreement;
mod allocators;
mod authority;
mod certificates;
mod figures;
mod ipams;
mod members;
mod plugins;
mod recover;
mod refusals;
mod settings;
mod story;
mod trust;
mod versions;
mod waiting;

/// The daemon under test.
const WEFT: &str = env!("CARGO_BIN_EXE_weft-under-test");
