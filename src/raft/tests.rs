//! Three nodes in one process, on real files.
