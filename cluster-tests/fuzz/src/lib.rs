//! What the fuzz targets share: a node among peers that lie, their messages, and what must hold whatever they say.

pub mod message;
pub mod script;
pub mod seeds;
pub mod world;
