//! docs/commands.md lists exactly the commands of the table.
#![allow(clippy::unwrap_used, reason = "a bad table fails the test")]

use gyre_protocol::command::{Command, CommandId, Group, introspect};
use gyre_protocol::{OwnedArgs, Reply, lookup};

const DOCUMENT: &str = include_str!("../docs/commands.md");

/// Chapters in the order of the page.
const CHAPTERS: [(Group, &str); 8] = [
    (Group::String, "Strings and counters"),
    (Group::Bitmap, "Bits"),
    (Group::Generic, "Keys"),
    (Group::Connection, "Connection"),
    (Group::Server, "Server"),
    (Group::Cluster, "Cluster"),
    (Group::Gyre, "Gyre's own"),
    (Group::Scripting, "Scripts and functions (empty stores)"),
];

#[test]
fn the_page_lists_the_commands_of_the_table() {
    let lists = lists();
    assert!(DOCUMENT.contains(&lists), "docs/commands.md should end with:\n{lists}");
}

/// A chapter each: heading, then a line per command.
fn lists() -> String {
    let commands = top_level();
    let mut text = String::new();
    for (group, title) in CHAPTERS {
        let lines: Vec<String> =
            commands.iter().filter(|command| command.group == group).map(|command| line(command)).collect();
        text += &format!("\n## {title}\n\n{}", lines.concat());
    }
    let listed = text.lines().filter(|line| line.starts_with("- ")).count();
    assert_eq!(listed, commands.len(), "a chapter is missing");
    text
}

/// One command with its subcommands and summary.
fn line(command: &Command) -> String {
    let name = command.name.to_ascii_uppercase();
    let summary = command.summary.trim_end_matches('.');
    let subcommands: Vec<String> = command
        .subcommands
        .iter()
        .filter_map(|subcommand| subcommand.name.split_once('|'))
        .map(|(_, name)| name.to_ascii_uppercase())
        .filter(|name| name != "HELP")
        .collect();
    match subcommands.is_empty() {
        true => format!("- `{name}`: {summary}\n"),
        false => format!("- `{name}` {}\n", subcommands.join(", ")),
    }
}

/// All commands that are no subcommands, as COMMAND LIST names them.
fn top_level() -> Vec<&'static Command> {
    let request: OwnedArgs = ["COMMAND", "LIST"].into_iter().collect();
    let Some(Reply::Set(names)) = introspect::answer(CommandId::CommandList, request.args()) else {
        panic!("COMMAND LIST answers a set")
    };
    let name = |reply: Reply| match reply {
        Reply::Bulk(name) => name,
        other => panic!("not a name: {other:?}"),
    };
    let names = names.into_iter().map(name).filter(|name| !name.contains(&b'|'));
    let mut commands: Vec<&Command> = names.map(|name| lookup(&name).unwrap()).collect();
    commands.sort_by_key(|command| command.name);
    commands
}
