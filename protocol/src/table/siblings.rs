//! Values written with a context: what concurrent writers write stands side by side until somebody has seen it.

use crate::command::{Command, CommandId, Group, ROW, categories, flags, keys};

pub(super) static SIBLINGS: &[Command] = &[
    Command {
        id: CommandId::VcGet,
        name: "vc.get",
        arity: 2,
        flags: flags("readonly fast"),
        categories: categories("read string fast"),
        keys: &[keys(1, 0, 1, "RO access")],
        group: Group::Gyre,
        since: "0.1.0",
        summary: "Returns the context of a key and every value that no write with a context has replaced.",
        complexity: "O(N) where N is the number of values",
        arguments: "key",
        ..ROW
    },
    Command {
        id: CommandId::VcSet,
        name: "vc.set",
        arity: -4,
        flags: flags("write denyoom"),
        categories: categories("write string slow"),
        keys: &[keys(1, 0, 1, "RW update")],
        group: Group::Gyre,
        since: "0.1.0",
        summary: "Sets a value in place of those that the context has seen, beside all others.",
        complexity: "O(N) where N is the number of values",
        arguments: "key context value [expiration:<EX seconds:integer|PX milliseconds:integer|EXAT unix-time-seconds:unix-time|PXAT unix-time-milliseconds:unix-time>]",
        ..ROW
    },
    Command {
        id: CommandId::VcDel,
        name: "vc.del",
        arity: 3,
        flags: flags("write"),
        categories: categories("write string slow"),
        keys: &[keys(1, 0, 1, "RW delete")],
        group: Group::Gyre,
        since: "0.1.0",
        summary: "Deletes the values that the context has seen.",
        complexity: "O(N) where N is the number of values",
        arguments: "key context",
        ..ROW
    },
];
