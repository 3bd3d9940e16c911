//! A whole Gyre cluster in one thread under virtual time: the production cores, unchanged, with a network, disks,
//! clocks and clients around them that do the worst they may, all from one seed; and checkers that judge what clients
//! saw. `docs/simulation.md` says what is simulated and what exactly is asserted.
//!
//! [`run_seed`] runs one seed. What the seed stands for is decided by a plan; a world has nodes, each with a disk, a
//! clock and perhaps a process; everything that happens is an event in one queue. The same seed gives the same events.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a harness over its own small numbers, where a panic is a failed run"
)]

mod checkers;
mod client;
mod clock;
mod commit;
mod ending;
mod event;
mod fault;
mod flush;
mod gossip;
mod handoff;
mod history;
mod lapse;
mod local;
mod mutation;
mod network;
mod node;
mod plan;
mod purge;
mod queue;
mod random;
mod refusals;
mod repair;
mod report;
mod runner;
mod shell;
mod split;
mod surroundings;
mod sweep;
mod time;
mod traffic;
mod workload;
mod world;

pub use checkers::convergence::Agreement;
pub use mutation::Mutation;
pub use plan::Options;
pub use refusals::Refusals;
pub use report::Report;
pub use runner::{Failure, replay_command, run_seed, run_seeds};
pub use split::{Half, SplitReport, split};
