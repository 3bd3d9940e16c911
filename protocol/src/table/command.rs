//! The table itself.

use crate::command::{Command, CommandId, Group, ROW, categories, flags};

pub(super) static COMMAND: &[Command] = &[Command {
    id: CommandId::Command,
    name: "command",
    arity: -1,
    flags: flags("loading stale"),
    categories: categories("slow connection"),
    tips: &["nondeterministic_output_order"],
    group: Group::Server,
    since: "2.8.13",
    summary: "Get array of Redis command details",
    complexity: "O(N) where N is the total number of Redis commands",
    subcommands: &[
        Command {
            id: CommandId::CommandCount,
            name: "command|count",
            arity: 2,
            flags: flags("loading stale"),
            categories: categories("slow connection"),
            group: Group::Server,
            since: "2.8.13",
            summary: "Get total number of Redis commands",
            complexity: "O(1)",
            ..ROW
        },
        Command {
            id: CommandId::CommandInfo,
            name: "command|info",
            arity: -2,
            flags: flags("loading stale"),
            categories: categories("slow connection"),
            tips: &["nondeterministic_output_order"],
            group: Group::Server,
            since: "2.8.13",
            summary: "Get array of specific Redis command details, or all when no argument is given.",
            complexity: "O(N) where N is the number of commands to look up",
            arguments: "[command-name...]",
            ..ROW
        },
        Command {
            id: CommandId::CommandDocs,
            name: "command|docs",
            arity: -2,
            flags: flags("loading stale"),
            categories: categories("slow connection"),
            tips: &["nondeterministic_output_order"],
            group: Group::Server,
            since: "7.0.0",
            summary: "Get array of specific Redis command documentation",
            complexity: "O(N) where N is the number of commands to look up",
            arguments: "[command-name...]",
            ..ROW
        },
        Command {
            id: CommandId::CommandList,
            name: "command|list",
            arity: -2,
            flags: flags("loading stale"),
            categories: categories("slow connection"),
            tips: &["nondeterministic_output_order"],
            group: Group::Server,
            since: "7.0.0",
            summary: "Get an array of Redis command names",
            complexity: "O(N) where N is the total number of Redis commands",
            arguments: "[FILTERBY filterby:<MODULE module-name|ACLCAT category|PATTERN pattern>]",
            ..ROW
        },
        Command {
            id: CommandId::CommandGetkeys,
            name: "command|getkeys",
            arity: -3,
            flags: flags("loading stale"),
            categories: categories("slow connection"),
            group: Group::Server,
            since: "2.8.13",
            summary: "Extract keys given a full Redis command",
            complexity: "O(N) where N is the number of arguments to the command",
            arguments: "command [arg...]",
            ..ROW
        },
        Command {
            id: CommandId::CommandGetkeysandflags,
            name: "command|getkeysandflags",
            arity: -3,
            flags: flags("loading stale"),
            categories: categories("slow connection"),
            group: Group::Server,
            since: "7.0.0",
            summary: "Extract keys and access flags given a full Redis command",
            complexity: "O(N) where N is the number of arguments to the command",
            arguments: "command [arg...]",
            ..ROW
        },
        Command {
            id: CommandId::CommandHelp,
            name: "command|help",
            arity: 2,
            flags: flags("loading stale"),
            categories: categories("slow connection"),
            group: Group::Server,
            since: "5.0.0",
            summary: "Show helpful text about the different subcommands",
            complexity: "O(1)",
            ..ROW
        },
    ],
    ..ROW
}];
