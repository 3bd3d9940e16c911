//! Commands: from parsed arguments to a [`Reply`].
//!
//! Three kinds of command, by what they need:
//! - *immediate* ones read or change the connection or this node and answer at once ([`immediate`]);
//! - *hot* ones (GET, plain SET, the INCR family) go straight to the coordinator (`session::hot`);
//! - all others are `async` functions over a [`Context`], run as tasks on the worker's own thread.

pub mod arguments;
pub mod bitmap;
pub mod bits;
pub mod cluster_keys;
pub mod context;
pub mod dispatch;
pub mod error;
pub mod expiry;
pub mod flush;
pub mod gather;
pub mod immediate;
pub mod keys;
pub mod lcs;
pub mod multi;
pub mod object;
pub mod options;
pub mod replicas;
pub mod scan;
pub mod siblings;
pub mod strings;
pub mod subsequence;
pub mod value;
pub mod wait;

pub use arguments::Arguments;
pub use context::Context;
pub use error::CommandError;

/// What a command answers: a reply, or an error that [`error`] turns into RESP text.
pub type Answer = Result<gyre_protocol::Reply, CommandError>;
