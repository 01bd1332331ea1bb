//! The sink's rules, without processes.
