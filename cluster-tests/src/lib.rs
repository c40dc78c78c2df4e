//! SIMULATION and CHAOS: the whole node in virtual time ([`sim`]), and real processes and containers ([`cluster`]).

pub mod cluster;
pub mod sim;
