//! The rows of the command table, by chapter.
//!
//! Names, arity, flags, categories, key positions and texts are those of Redis 7.2, so that clients which read
//! `COMMAND` see what they know. Argument notation: [`crate::command::docs`].

mod bitmap;
mod cluster;
mod command;
mod connection;
mod expiry;
mod keys;
mod number;
mod observe;
mod scripting;
mod server;
mod siblings;
mod string;

use crate::command::Command;

/// All top-level commands.
pub(crate) const GROUPS: [&[Command]; 12] = [
    connection::CONNECTION,
    server::SERVER,
    observe::OBSERVE,
    command::COMMAND,
    keys::KEYS,
    expiry::EXPIRY,
    string::STRING,
    number::NUMBER,
    bitmap::BITMAP,
    siblings::SIBLINGS,
    cluster::CLUSTER,
    scripting::SCRIPTING,
];
