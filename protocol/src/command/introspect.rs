//! What `COMMAND` and its subcommands answer, in the shape of Redis 7.2.

use super::{Categories, Command, CommandId, KeySpec, docs, id, lookup, resolve};
use crate::glob;
use crate::reply::Reply;
use crate::request::Args;

/// The reply to `COMMAND` or one of its subcommands; `None` for any other id.
///
/// `args` is the whole request.
#[must_use]
pub fn answer(id: CommandId, args: Args<'_>) -> Option<Reply> {
    Some(match id {
        CommandId::Command => Reply::Array(id::top_level().map(info).collect()),
        CommandId::CommandCount => Reply::count(id::top_level().count()),
        CommandId::CommandInfo => infos(args.from(2)),
        CommandId::CommandDocs => docs::docs(args.from(2)),
        CommandId::CommandList => list(args.from(2)),
        CommandId::CommandGetkeys => get_keys(args.from(2), false),
        CommandId::CommandGetkeysandflags => get_keys(args.from(2), true),
        CommandId::CommandHelp => docs::help_of(CommandId::Command.command()),
        _ => return None,
    })
}

/// The row of a full name, in any case: `get`, `config|get`.
pub(super) fn by_full_name(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|byte| *byte == b'|') {
        None => lookup(name),
        Some(bar) => lookup(name.get(..bar)?)?.subcommand(name.get(bar + 1..)?),
    }
}

fn infos(names: Args<'_>) -> Reply {
    if names.is_empty() {
        return Reply::Array(id::top_level().map(info).collect());
    }
    Reply::Array(names.iter().map(|name| by_full_name(name).map_or(Reply::Null, info)).collect())
}

/// One row as `COMMAND INFO` shows it.
fn info(command: &Command) -> Reply {
    let (first, last, step) = legacy_range(command.keys);
    let category = |name: &str| Reply::simple(format!("@{name}"));
    Reply::Array(vec![
        Reply::text(command.name),
        number(command.arity),
        Reply::Set(command.flags.names().map(Reply::simple).collect()),
        number(first),
        number(last),
        number(step),
        Reply::Set(command.categories.names().map(category).collect()),
        Reply::Array(command.tips.iter().map(|tip| Reply::text(*tip)).collect()),
        Reply::Array(command.keys.iter().map(key_spec).collect()),
        Reply::Array(command.subcommands.iter().map(info).collect()),
    ])
}

/// First key, last key and step, as before key specs: the specs of the table touch each other.
fn legacy_range(specs: &[KeySpec]) -> (isize, isize, isize) {
    let (Some(first), Some(last)) = (specs.first(), specs.last()) else {
        return (0, 0, 0);
    };
    let position = |index: usize| isize::try_from(index).unwrap_or(0);
    let end = if last.last < 0 { last.last } else { position(last.begin) + last.last };
    (position(first.begin), end, position(last.step))
}

fn key_spec(spec: &KeySpec) -> Reply {
    let typed = |kind: &'static str, fields: Vec<(&str, Reply)>| {
        Reply::map([("type", Reply::text(kind)), ("spec", Reply::map(fields))])
    };
    Reply::map([
        ("flags", Reply::Set(spec.flags.names().map(Reply::simple).collect())),
        ("begin_search", typed("index", vec![("index", Reply::count(spec.begin))])),
        (
            "find_keys",
            typed(
                "range",
                vec![
                    ("lastkey", number(spec.last)),
                    ("keystep", Reply::count(spec.step)),
                    ("limit", Reply::Integer(0)),
                ],
            ),
        ),
    ])
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`.
fn list(args: Args<'_>) -> Reply {
    let is = |index: usize, word: &[u8]| args.arg(index).eq_ignore_ascii_case(word);
    let wanted = args.arg(2);
    let chosen: Vec<&Command> = match args.len() {
        0 => id::all().collect(),
        3 if is(0, b"FILTERBY") && is(1, b"MODULE") => Vec::new(),
        3 if is(0, b"FILTERBY") && is(1, b"ACLCAT") => {
            id::all().filter(|command| has_category(command.categories, wanted)).collect()
        }
        3 if is(0, b"FILTERBY") && is(1, b"PATTERN") => {
            let pattern = wanted.to_ascii_lowercase();
            id::all().filter(|command| glob::matches(&pattern, command.name.as_bytes())).collect()
        }
        _ => return Reply::error("ERR syntax error"),
    };
    Reply::Set(chosen.into_iter().map(|command| Reply::text(command.name)).collect())
}

fn has_category(categories: Categories, name: &[u8]) -> bool {
    categories.names().any(|category| category.as_bytes().eq_ignore_ascii_case(name))
}

/// `COMMAND GETKEYS` and `GETKEYSANDFLAGS` of the request `args`.
fn get_keys(args: Args<'_>, with_flags: bool) -> Reply {
    let named = lookup(args.arg(0)).and_then(|command| {
        if command.subcommands.is_empty() || args.len() == 1 {
            Some(command)
        } else {
            command.subcommand(args.arg(1))
        }
    });
    let Some(command) = named else {
        return Reply::error("ERR Invalid command specified");
    };
    if command.keys.is_empty() {
        return Reply::error("ERR The command has no key arguments");
    }
    if resolve(args).is_err() {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    let keys = command.keys(args).map(|(index, flags)| {
        let key = Reply::bulk(args.arg(index));
        if with_flags {
            Reply::Array(vec![key, Reply::Set(flags.names().map(Reply::simple).collect())])
        } else {
            key
        }
    });
    Reply::Array(keys.collect())
}

fn number(value: isize) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::answer;
    use crate::command::{CommandId, id, resolve};
    use crate::reply::Reply;
    use crate::request::OwnedArgs;

    fn ask(words: &[&str]) -> Reply {
        let owned: OwnedArgs = words.iter().collect();
        let command = resolve(owned.args()).expect("a known command");
        answer(command.id, owned.args()).expect("one of COMMAND's")
    }

    fn texts(reply: &Reply) -> Vec<String> {
        let (Reply::Array(items) | Reply::Set(items)) = reply else { panic!("{reply:?} is no list") };
        let text = |item: &Reply| match item {
            Reply::Bulk(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("{other:?} is no text"),
        };
        items.iter().map(text).collect()
    }

    #[test]
    fn command_and_its_count_cover_the_table() {
        let Reply::Array(rows) = ask(&["COMMAND"]) else { panic!("an array") };
        assert_eq!(ask(&["COMMAND", "COUNT"]), Reply::count(rows.len()));
        assert_eq!(rows.len(), id::top_level().count());
    }

    #[test]
    fn info_has_the_ten_fields_of_redis() {
        let Reply::Array(rows) = ask(&["COMMAND", "INFO", "get", "nosuch", "BITOP"]) else {
            panic!("an array")
        };
        assert_eq!(rows[1], Reply::Null);
        let Reply::Array(get) = &rows[0] else { panic!("an array") };
        assert_eq!(get.len(), 10);
        assert_eq!(&get[..2], [Reply::text("get"), Reply::Integer(2)]);
        assert_eq!(get[2], Reply::Set(vec![Reply::simple("readonly"), Reply::simple("fast")]));
        let Reply::Array(bitop) = &rows[2] else { panic!("an array") };
        assert_eq!(&bitop[3..6], [Reply::Integer(2), Reply::Integer(-1), Reply::Integer(1)]);
    }

    #[test]
    fn list_filters_by_category_pattern_and_module() {
        assert_eq!(texts(&ask(&["COMMAND", "LIST"])).len(), CommandId::COUNT);
        let strings = texts(&ask(&["command", "list", "filterby", "aclcat", "string"]));
        assert!(strings.contains(&"set".to_owned()) && !strings.contains(&"del".to_owned()));
        assert_eq!(texts(&ask(&["COMMAND", "LIST", "FILTERBY", "PATTERN", "CONFIG|RE*"])).len(), 2);
        assert!(texts(&ask(&["COMMAND", "LIST", "FILTERBY", "MODULE", "json"])).is_empty());
        assert_eq!(ask(&["COMMAND", "LIST", "FILTERBY", "x"]), Reply::error("ERR syntax error"));
    }

    #[test]
    fn keys_of_a_request_are_found() {
        assert_eq!(texts(&ask(&["COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2"])), ["a", "b"]);
        assert_eq!(texts(&ask(&["COMMAND", "GETKEYS", "bitop", "and", "d", "x", "y"])), ["d", "x", "y"]);
        assert_eq!(texts(&ask(&["COMMAND", "GETKEYS", "object", "encoding", "k"])), ["k"]);
        assert_eq!(texts(&ask(&["COMMAND", "GETKEYS", "lcs", "k", "l", "LEN"])), ["k", "l"]);
        let Reply::Array(items) = ask(&["COMMAND", "GETKEYSANDFLAGS", "COPY", "a", "b"]) else {
            panic!("an array")
        };
        let flags =
            |words: &[&'static str]| Reply::Set(words.iter().map(|word| Reply::simple(*word)).collect());
        assert_eq!(items[0], Reply::Array(vec![Reply::bulk("a"), flags(&["RO", "access"])]));
        assert_eq!(items[1], Reply::Array(vec![Reply::bulk("b"), flags(&["OW", "update"])]));
    }

    #[test]
    fn requests_without_keys_are_refused_in_the_words_of_redis() {
        let error = |words: &[&str]| ask(&[&["COMMAND", "GETKEYS"], words].concat());
        assert_eq!(error(&["nosuch", "a"]), Reply::error("ERR Invalid command specified"));
        assert_eq!(error(&["ping"]), Reply::error("ERR The command has no key arguments"));
        assert_eq!(error(&["get"]), Reply::error("ERR Invalid number of arguments specified for command"));
    }
}
