//! Gyre: a leaderless, always-writable, persistent key-value cluster that speaks the Redis protocol.
//!
//! This crate is the shell around the pure cores of `gyre-cluster`: sockets, threads, settings and commands. See
//! ARCHITECTURE.md for the picture and the life of a request.

pub mod absence;
pub mod cli;
pub mod config;
pub mod dev;
pub mod error;
pub mod execute;
pub mod handoff;
pub mod http;
pub mod learner;
pub mod logging;
pub mod mender;
pub mod metrics;
pub mod net;
pub mod node;
pub mod peer;
pub mod purger;
pub mod rejoin;
pub mod repair;
pub mod server;
pub mod session;
pub mod slowlog;
pub mod status;
pub mod status_report;
pub mod sweeper;
pub mod timekeeping;
pub mod worker;
