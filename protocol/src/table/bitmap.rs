//! Strings as bit fields.

use crate::command::{Command, CommandId, Group, ROW, categories, flags, keys};

pub(super) static BITMAP: &[Command] = &[
    Command {
        id: CommandId::Setbit,
        name: "setbit",
        arity: 4,
        flags: flags("write denyoom"),
        categories: categories("write bitmap slow"),
        keys: &[keys(1, 0, 1, "RW access update")],
        group: Group::Bitmap,
        since: "2.2.0",
        summary: "Sets or clears the bit at offset in the string value stored at key",
        complexity: "O(1)",
        arguments: "key offset:integer value:integer",
        ..ROW
    },
    Command {
        id: CommandId::Getbit,
        name: "getbit",
        arity: 3,
        flags: flags("readonly fast"),
        categories: categories("read bitmap fast"),
        keys: &[keys(1, 0, 1, "RO access")],
        group: Group::Bitmap,
        since: "2.2.0",
        summary: "Returns the bit value at offset in the string value stored at key",
        complexity: "O(1)",
        arguments: "key offset:integer",
        ..ROW
    },
    Command {
        id: CommandId::Bitcount,
        name: "bitcount",
        arity: -2,
        flags: flags("readonly"),
        categories: categories("read bitmap slow"),
        keys: &[keys(1, 0, 1, "RO access")],
        group: Group::Bitmap,
        since: "2.6.0",
        summary: "Count set bits in a string",
        complexity: "O(N)",
        arguments: "key [range:(start:integer end:integer [unit:<BYTE|BIT>])]",
        ..ROW
    },
    Command {
        id: CommandId::Bitpos,
        name: "bitpos",
        arity: -3,
        flags: flags("readonly"),
        categories: categories("read bitmap slow"),
        keys: &[keys(1, 0, 1, "RO access")],
        group: Group::Bitmap,
        since: "2.8.7",
        summary: "Find first bit set or clear in a string",
        complexity: "O(N)",
        arguments: "key bit:integer [range:(start:integer [end-unit-block:(end:integer [unit:<BYTE|BIT>])])]",
        ..ROW
    },
    Command {
        id: CommandId::Bitop,
        name: "bitop",
        arity: -4,
        flags: flags("write denyoom"),
        categories: categories("write bitmap slow"),
        keys: &[keys(2, 0, 1, "OW update"), keys(3, -1, 1, "RO access")],
        group: Group::Bitmap,
        since: "2.6.0",
        summary: "Perform bitwise operations between strings",
        complexity: "O(N)",
        arguments: "operation:<AND|OR|XOR|NOT> destkey:key key...",
        ..ROW
    },
];
