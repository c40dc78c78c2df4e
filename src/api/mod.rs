//! Doors: HTTP control API, Docker plugin, CNI; each with its own types.

pub mod client;
pub mod cni;
pub mod docker;
pub mod http;

#[cfg(test)]
mod tests;
