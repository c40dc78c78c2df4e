//! Who may lead: when a voter stands for election, whom a voter would vote for, what a majority is.
//!
//! The engine of the agreement counts votes and terms; when to begin an election is decided here.
//!
//! **Invariants:** nobody stands whom a majority would not vote for, so who hears nobody raises no term; who hears a leader
//! would vote for nobody, so one that a majority hears is not deposed. Source: Ongaro, "Consensus: Bridging Theory and Practice"
//! (2014), §9.6 (pre-vote) and §6.4.1 (leases).

mod election;
mod quorum;

#[cfg(test)]
mod tests;

pub use election::{Ballot, Election, Leads, Patience, Sight, Step, is_heard, would_vote};
pub use quorum::{most, most_of_all};
