//! RESP2 and RESP3 for Gyre: bytes to requests, replies to bytes, and the command table.
//!
//! Pure functions and small state machines: no socket, no clock, no runtime, no knowledge of nodes or disks.

pub mod command;
pub mod double;
mod error;
pub mod glob;
mod inline;
mod parser;
mod reply;
mod request;
mod table;
mod writer;

pub use command::{Command, CommandId, KeySpec, lookup, resolve};
pub use error::ProtocolError;
pub use parser::{Limits, Parsed, Parser, integer};
pub use reply::Reply;
pub use request::{Args, ArgsIter, OwnedArgs};
pub use writer::{Resp, Writer};
