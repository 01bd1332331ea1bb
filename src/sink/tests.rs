//! The sink's rules, without processes.
//! The sink's rules, without processes.
