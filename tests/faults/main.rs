//! Fault tests: real `gyre server` processes under real load, while processes die or freeze and networks break.
//!
//! Each scenario runs clients against the cluster ([`load`]), does its harm, waits until the cluster is whole again, and
//! then asks every replica for every acknowledged write ([`verify`]): none may be lost. A table on standard error tells
//! what was acknowledged, what failed and how, and for how long nothing succeeded.
//!
//! Faults of processes run on loopback ([`processes`]). Faults of the network run in network namespaces ([`network`]),
//! which takes root and Linux; without them these scenarios say loudly that they were skipped. Long scenarios are
//! ignored by default: `make faults` runs all.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "what does not hold fails the test"
)]

mod cart;
mod clocks;
mod drift;
mod ledger;
mod links;
mod load;
mod network;
mod processes;
mod report;
mod rot;
mod sloppy;
mod storm;
#[path = "../support/mod.rs"]
mod support;
mod verify;
mod wire;
