//! Strings that hold numbers.

use crate::command::{Command, CommandId, Group, ROW, categories, flags, keys};

pub(super) static NUMBER: &[Command] = &[
    Command {
        id: CommandId::Incr,
        name: "incr",
        arity: 2,
        flags: flags("write denyoom fast"),
        categories: categories("write string fast"),
        keys: &[keys(1, 0, 1, "RW access update")],
        group: Group::String,
        since: "1.0.0",
        summary: "Increment the integer value of a key by one",
        complexity: "O(1)",
        arguments: "key",
        ..ROW
    },
    Command {
        id: CommandId::Incrby,
        name: "incrby",
        arity: 3,
        flags: flags("write denyoom fast"),
        categories: categories("write string fast"),
        keys: &[keys(1, 0, 1, "RW access update")],
        group: Group::String,
        since: "1.0.0",
        summary: "Increment the integer value of a key by the given amount",
        complexity: "O(1)",
        arguments: "key increment:integer",
        ..ROW
    },
    Command {
        id: CommandId::Decr,
        name: "decr",
        arity: 2,
        flags: flags("write denyoom fast"),
        categories: categories("write string fast"),
        keys: &[keys(1, 0, 1, "RW access update")],
        group: Group::String,
        since: "1.0.0",
        summary: "Decrement the integer value of a key by one",
        complexity: "O(1)",
        arguments: "key",
        ..ROW
    },
    Command {
        id: CommandId::Decrby,
        name: "decrby",
        arity: 3,
        flags: flags("write denyoom fast"),
        categories: categories("write string fast"),
        keys: &[keys(1, 0, 1, "RW access update")],
        group: Group::String,
        since: "1.0.0",
        summary: "Decrement the integer value of a key by the given number",
        complexity: "O(1)",
        arguments: "key decrement:integer",
        ..ROW
    },
    Command {
        id: CommandId::Incrbyfloat,
        name: "incrbyfloat",
        arity: 3,
        flags: flags("write denyoom fast"),
        categories: categories("write string fast"),
        keys: &[keys(1, 0, 1, "RW access update")],
        group: Group::String,
        since: "2.6.0",
        summary: "Increment the float value of a key by the given amount",
        complexity: "O(1)",
        arguments: "key increment:double",
        ..ROW
    },
];
