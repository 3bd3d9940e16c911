//! Nothing a client writes makes the command table, the globs or the quoting panic, loop or misread.

use gyre_protocol::{
    CommandId, Limits, OwnedArgs, Parsed, Parser, Resp, Writer, command::introspect, glob, lookup, resolve,
};
use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};
use proptest::sample::select;

/// Names of commands in any case, their subcommands, and words that are neither.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<&'static str> =
        CommandId::ALL.iter().flat_map(|id| id.command().name.split('|')).collect();
    prop_oneof![
        select(names.clone()).prop_map(|name| name.as_bytes().to_vec()),
        select(names).prop_map(|name| name.to_ascii_uppercase().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 120..140),
    ]
}

/// `?`, `*` and literals, matched by the book: exponential, so for short texts only.
fn matches_by_the_book(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            (0..=text.len()).any(|taken| matches_by_the_book(rest, text.split_at(taken).1))
        }
        ([b'?', rest @ ..], [_, after @ ..]) => matches_by_the_book(rest, after),
        ([literal, rest @ ..], [byte, after @ ..]) => literal == byte && matches_by_the_book(rest, after),
        _ => false,
    }
}

/// `argument` as an inline command spells it.
fn quoted(argument: &[u8]) -> String {
    let escaped: String = argument.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{escaped}\"")
}

proptest! {
    #[test]
    fn any_words_get_a_row_or_one_line_of_error(words in prop::collection::vec(word(), 1..8)) {
        let owned: OwnedArgs = words.iter().collect();
        match resolve(owned.args()) {
            Ok(command) => {
                assert!(command.accepts(words.len()));
                let keys: Vec<usize> = command.keys(owned.args()).map(|(index, _)| index).collect();
                assert!(keys.iter().all(|index| *index > 0 && *index < words.len()), "{keys:?} of {words:?}");
            }
            Err(reply) => {
                let mut out = Vec::new();
                reply.write(&mut Writer::new(&mut out, Resp::Two));
                let line = out.strip_suffix(b"\r\n").expect("ends its line");
                assert!(line.starts_with(b"-ERR ") && !line.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
            }
        }
    }

    #[test]
    fn command_answers_whatever_it_is_asked(words in prop::collection::vec(word(), 0..6)) {
        let asked: Vec<Vec<u8>> = [vec![b"COMMAND".to_vec()], words].concat();
        let owned: OwnedArgs = asked.iter().collect();
        if let Ok(command) = resolve(owned.args()) {
            assert!(introspect::answer(command.id, owned.args()).is_some(), "{}", command.name);
        }
    }

    #[test]
    fn lookup_finds_exactly_the_names_of_the_table(name in word()) {
        let expected = CommandId::ALL.iter().map(|id| id.command()).find(|row| row.name.as_bytes().eq_ignore_ascii_case(&name));
        let expected = expected.filter(|row| !row.name.contains('|'));
        assert_eq!(lookup(&name).map(|row| row.id), expected.map(|row| row.id));
    }

    #[test]
    fn globs_of_stars_and_marks_match_by_the_book(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
        let expected = matches_by_the_book(pattern.as_bytes(), text.as_bytes());
        assert_eq!(glob::matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
    }

    #[test]
    fn a_text_matches_itself_when_every_byte_is_escaped(text in prop::collection::vec(any::<u8>(), 0..30)) {
        let pattern: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
        assert!(glob::matches(&pattern, &text));
    }

    #[test]
    fn any_pattern_ends_with_an_answer(pattern in "[\\[\\]^*?a-c\\\\-]{0,40}", text in "[a-c]{0,60}") {
        let _ = glob::matches(pattern.as_bytes(), text.as_bytes());
        assert!(glob::matches(b"*", text.as_bytes()));
    }

    #[test]
    fn quoted_arguments_survive_an_inline_command(arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6)) {
        let line = arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ") + "\r\n";
        let mut parser = Parser::new();
        assert_eq!(parser.parse(line.as_bytes(), &Limits::DEFAULT), Ok(Parsed::Request { consumed: line.len() }));
        assert_eq!(parser.args(line.as_bytes()).iter().collect::<Vec<_>>(), arguments);
    }
}
