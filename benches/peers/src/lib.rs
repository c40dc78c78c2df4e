//! Weft beside its peers: N nodes of each system in one process on loopback, from one write at one node until all have it.
//!
//! - `systems`: a cluster of Weft, of chitchat, of memberlist, behind one trait.
//! - `arrivals`: who has the write already; `payload`: what is written.
//! - `measure`: one sample of one system: settle, look at it idle, write.
//! - `figures`: what comes out of the samples; `report`: the table, or lines of JSON; `plot`: the picture.
//!
//! The systems take turns, one running at a time, so that none disturbs another and all meet the same ups and downs of the
//! machine.

pub mod arrivals;
pub mod figures;
pub mod measure;
pub mod payload;
pub mod plot;
pub mod report;
pub mod systems;
