//! `COMMAND DOCS` and the `HELP` subcommands.
//!
//! Rows say what a command takes in a short notation (`key value [GET] [EX seconds:integer]`, see `syntax.rs`);
//! here it becomes the nested maps that redis-cli makes its hints of.

use super::syntax::{self, Argument, Kind};
use super::{Command, id, lookup};
use crate::reply::Reply;
use crate::request::Args;

/// `COMMAND DOCS [name …]`: a map from names to what the manual says; unknown names are left out.
#[must_use]
pub fn docs(names: Args<'_>) -> Reply {
    let commands: Vec<&Command> = if names.is_empty() {
        id::top_level().collect()
    } else {
        names.iter().filter_map(super::introspect::by_full_name).collect()
    };
    Reply::Map(commands.into_iter().map(entry).collect())
}

/// The `HELP` of a container, as lines.
#[must_use]
pub fn help(container: &Command) -> Reply {
    let mut lines = vec![format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.name.to_ascii_uppercase()
    )];
    let others = container.subcommands.iter().filter(|command| command.short_name() != "help");
    for command in others {
        let name = command.short_name().to_ascii_uppercase();
        let arguments = syntax::display(&syntax::parse(command.arguments).unwrap_or_default());
        lines.push(format!("{name} {arguments}").trim_end().to_owned());
        lines.push(format!("    {}", command.summary));
    }
    lines.push("HELP".to_owned());
    lines.push("    Print this help.".to_owned());
    Reply::Array(lines.into_iter().map(Reply::simple).collect())
}

/// [`help`] of the container of a `…|help` row.
#[must_use]
pub fn help_of(command: &Command) -> Reply {
    let container = command.name.split_once('|').map_or(command.name, |(container, _)| container);
    lookup(container.as_bytes()).map_or(Reply::NullArray, help)
}

fn entry(command: &Command) -> (Reply, Reply) {
    let mut pairs = vec![
        ("summary", Reply::text(command.summary)),
        ("since", Reply::text(command.since)),
        ("group", Reply::text(command.group.name())),
    ];
    if !command.complexity.is_empty() {
        pairs.push(("complexity", Reply::text(command.complexity)));
    }
    if let Some(deprecation) = command.deprecated {
        pairs.push(("doc_flags", Reply::Set(vec![Reply::simple("deprecated")])));
        pairs.push(("deprecated_since", Reply::text(deprecation.since)));
        pairs.push(("replaced_by", Reply::text(deprecation.replaced_by)));
    }
    let tree = syntax::parse(command.arguments).unwrap_or_default();
    if !tree.is_empty() {
        let mut keys = KeyCounter { seen: 0, specs: command.keys.len() };
        pairs.push(("arguments", arguments(&tree, &mut keys)));
    }
    if !command.subcommands.is_empty() {
        pairs.push(("subcommands", Reply::Map(command.subcommands.iter().map(entry).collect())));
    }
    (Reply::text(command.name), Reply::map(pairs))
}

/// Numbers key arguments by the key spec that finds them.
struct KeyCounter {
    seen: usize,
    specs: usize,
}

impl KeyCounter {
    fn next(&mut self) -> usize {
        let index = self.seen.min(self.specs.saturating_sub(1));
        self.seen += 1;
        index
    }
}

fn arguments(tree: &[Argument<'_>], keys: &mut KeyCounter) -> Reply {
    Reply::Array(tree.iter().map(|argument| argument_map(argument, keys)).collect())
}

fn argument_map(argument: &Argument<'_>, keys: &mut KeyCounter) -> Reply {
    let kind = match &argument.kind {
        Kind::Value(kind) => kind,
        Kind::PureToken => "pure-token",
        Kind::OneOf(_) => "oneof",
        Kind::Block(_) => "block",
    };
    let mut pairs =
        vec![("name", Reply::text(argument.name.to_ascii_lowercase())), ("type", Reply::text(kind))];
    if matches!(argument.kind, Kind::Value(_) | Kind::PureToken) {
        pairs.push(("display_text", Reply::text(argument.name.to_ascii_lowercase())));
    }
    if kind == "key" {
        pairs.push(("key_spec_index", Reply::count(keys.next())));
    }
    if let Some(token) = argument.token {
        pairs.push(("token", Reply::text(token)));
    }
    let flags = [(argument.optional, "optional"), (argument.multiple, "multiple")];
    let flags: Vec<Reply> =
        flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| Reply::simple(name)).collect();
    if !flags.is_empty() {
        pairs.push(("flags", Reply::Array(flags)));
    }
    if let Kind::OneOf(children) | Kind::Block(children) = &argument.kind {
        pairs.push(("arguments", arguments(children, keys)));
    }
    Reply::map(pairs)
}

#[cfg(test)]
mod tests {
    use super::{docs, help, syntax};
    use crate::command::{id, lookup};
    use crate::reply::Reply;
    use crate::request::OwnedArgs;

    /// The value of `key` in a map.
    fn field<'r>(reply: &'r Reply, key: &str) -> &'r Reply {
        let Reply::Map(pairs) = reply else { panic!("{reply:?} is no map") };
        &pairs.iter().find(|(name, _)| *name == Reply::text(key)).unwrap_or_else(|| panic!("has {key}")).1
    }

    #[test]
    fn every_row_is_in_the_notation_and_fits_its_arity() {
        for command in id::all() {
            let tree =
                syntax::parse(command.arguments).unwrap_or_else(|| panic!("{} is readable", command.name));
            let names = command.name.split('|').count();
            let required: usize = tree.iter().filter(|argument| !argument.optional).map(least).sum();
            if command.subcommands.is_empty() && command.name != "debug" {
                assert!(command.accepts(names + required), "{}: {}", command.name, command.arguments);
            }
            if command.arity > 0 {
                assert!(tree.iter().all(|a| !a.optional && !a.multiple), "{} takes no options", command.name);
            }
        }
    }

    /// Fewest words an argument takes.
    fn least(argument: &syntax::Argument<'_>) -> usize {
        let words = match &argument.kind {
            syntax::Kind::PureToken => return 1,
            syntax::Kind::Value(_) => 1,
            syntax::Kind::OneOf(choices) => choices.iter().map(least).min().unwrap_or(0),
            syntax::Kind::Block(items) => items.iter().filter(|item| !item.optional).map(least).sum(),
        };
        words + usize::from(argument.token.is_some())
    }

    #[test]
    fn docs_of_set_have_what_redis_cli_makes_hints_of() {
        let names: OwnedArgs = ["SET", "nosuch", "config|get"].into_iter().collect();
        let reply = docs(names.args());
        let Reply::Map(entries) = &reply else { panic!("a map") };
        assert_eq!(entries.len(), 2, "unknown names are left out");
        let set = field(&reply, "set");
        assert_eq!(field(set, "group"), &Reply::text("string"));
        let Reply::Array(arguments) = field(set, "arguments") else { panic!("an array") };
        assert_eq!(field(&arguments[0], "key_spec_index"), &Reply::Integer(0));
        assert_eq!(field(&arguments[3], "token"), &Reply::text("GET"));
        assert_eq!(field(&arguments[3], "flags"), &Reply::Array(vec![Reply::simple("optional")]));
    }

    #[test]
    fn docs_without_names_cover_every_command() {
        let Reply::Map(entries) = docs(OwnedArgs::default().args()) else { panic!("a map") };
        assert_eq!(entries.len(), id::top_level().count());
    }

    #[test]
    fn help_lists_each_subcommand_with_its_arguments() {
        let Reply::Array(lines) = help(lookup(b"config").unwrap()) else { panic!("an array") };
        assert_eq!(
            lines[0],
            Reply::simple("CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
        );
        assert!(lines.contains(&Reply::simple("SET parameter value [parameter value ...]")));
        assert_eq!(lines.len(), 1 + 2 * 5);
    }
}
