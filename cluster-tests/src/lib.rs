//! SIMULATION and CHAOS: the whole node in virtual time ([`sim`]), real processes and containers ([`cluster`]), and such
//! processes under faults ([`chaos`]).

pub mod chaos;
pub mod cluster;
pub mod sim;
