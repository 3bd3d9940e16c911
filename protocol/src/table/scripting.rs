//! Scripts and functions.

use crate::command::{Command, CommandId, Group, ROW, categories, flags};

pub(super) static SCRIPTING: &[Command] = &[
    Command {
        id: CommandId::Function,
        name: "function",
        arity: -2,
        categories: categories("slow"),
        group: Group::Scripting,
        since: "7.0.0",
        summary: "A container for function commands",
        complexity: "Depends on subcommand.",
        subcommands: &[
            Command {
                id: CommandId::FunctionFlush,
                name: "function|flush",
                arity: -2,
                flags: flags("write noscript"),
                categories: categories("write slow scripting"),
                tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
                group: Group::Scripting,
                since: "7.0.0",
                summary: "Deleting all functions",
                complexity: "O(N) where N is the number of functions deleted",
                arguments: "[flush-type:<ASYNC|SYNC>]",
                ..ROW
            },
            Command {
                id: CommandId::FunctionList,
                name: "function|list",
                arity: -2,
                flags: flags("noscript"),
                categories: categories("slow scripting"),
                tips: &["nondeterministic_output_order"],
                group: Group::Scripting,
                since: "7.0.0",
                summary: "List information about all the functions",
                complexity: "O(N) where N is the number of functions",
                arguments: "[LIBRARYNAME library-name-pattern] [WITHCODE]",
                ..ROW
            },
            Command {
                id: CommandId::FunctionStats,
                name: "function|stats",
                arity: 2,
                flags: flags("noscript allow_busy"),
                categories: categories("slow scripting"),
                tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
                group: Group::Scripting,
                since: "7.0.0",
                summary: "Return information about the function currently running (name, description, duration)",
                complexity: "O(1)",
                ..ROW
            },
            Command {
                id: CommandId::FunctionHelp,
                name: "function|help",
                arity: 2,
                flags: flags("loading stale"),
                categories: categories("slow scripting"),
                group: Group::Scripting,
                since: "7.0.0",
                summary: "Show helpful text about the different subcommands",
                complexity: "O(1)",
                ..ROW
            },
        ],
        ..ROW
    },
    Command {
        id: CommandId::Script,
        name: "script",
        arity: -2,
        categories: categories("slow"),
        group: Group::Scripting,
        since: "2.6.0",
        summary: "A container for Lua scripts management commands",
        complexity: "Depends on subcommand.",
        subcommands: &[
            Command {
                id: CommandId::ScriptFlush,
                name: "script|flush",
                arity: -2,
                flags: flags("noscript"),
                categories: categories("slow scripting"),
                tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
                group: Group::Scripting,
                since: "2.6.0",
                summary: "Remove all the scripts from the script cache.",
                complexity: "O(N) with N being the number of scripts in cache",
                arguments: "[flush-type:<ASYNC|SYNC>]",
                ..ROW
            },
            Command {
                id: CommandId::ScriptExists,
                name: "script|exists",
                arity: -3,
                flags: flags("noscript"),
                categories: categories("slow scripting"),
                tips: &["request_policy:all_shards", "response_policy:agg_logical_and"],
                group: Group::Scripting,
                since: "2.6.0",
                summary: "Check existence of scripts in the script cache.",
                complexity: "O(N) with N being the number of scripts to check (so checking a single script is an O(1) operation).",
                arguments: "sha1...",
                ..ROW
            },
            Command {
                id: CommandId::ScriptHelp,
                name: "script|help",
                arity: 2,
                flags: flags("loading stale"),
                categories: categories("slow scripting"),
                group: Group::Scripting,
                since: "5.0.0",
                summary: "Show helpful text about the different subcommands",
                complexity: "O(1)",
                ..ROW
            },
        ],
        ..ROW
    },
];
