//! The notation in which rows say what a command takes, and the tree that `COMMAND DOCS` shows.
//!
//! ```text
//! list   = item { " " item }
//! item   = ( "[" item "]" | [ TOKEN " " ] value ) [ "..." ]
//! value  = name [ ":" type ]          a string unless a type is said; `key` and `pattern` are their own types
//!        | name ":<" item { "|" item } ">"       one of these
//!        | name ":(" list ")"                    these together
//!        | TOKEN                                 the word itself
//! ```
//!
//! `[…]` is optional, `…...` may repeat. A word in capitals is literal: alone it stands for itself, before a value it
//! introduces that value. Example: `key seconds:integer [condition:<NX|XX|GT|LT>]`.

/// One argument of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument<'s> {
    pub(crate) name: &'s str,
    pub(crate) kind: Kind<'s>,
    /// The literal word before it, or, for [`Kind::PureToken`], that it is.
    pub(crate) token: Option<&'s str>,
    pub(crate) optional: bool,
    pub(crate) multiple: bool,
}

/// What an argument is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind<'s> {
    /// A value of the type `string`, `integer`, `key`, ….
    Value(&'s str),
    /// Nothing but its token.
    PureToken,
    OneOf(Vec<Argument<'s>>),
    Block(Vec<Argument<'s>>),
}

/// Reads `text`; `None` when it is not in the notation, which a test excludes for every row.
pub(crate) fn parse(text: &str) -> Option<Vec<Argument<'_>>> {
    let mut reader = Reader { rest: text };
    let list = if text.is_empty() { Vec::new() } else { reader.list(" ")? };
    reader.rest.is_empty().then_some(list)
}

struct Reader<'s> {
    rest: &'s str,
}

impl<'s> Reader<'s> {
    fn eat(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn list(&mut self, separator: &str) -> Option<Vec<Argument<'s>>> {
        let mut items = vec![self.item()?];
        while self.eat(separator) {
            items.push(self.item()?);
        }
        Some(items)
    }

    fn item(&mut self) -> Option<Argument<'s>> {
        let mut argument = if self.eat("[") {
            let argument = self.item()?;
            if !self.eat("]") {
                return None;
            }
            Argument { optional: true, ..argument }
        } else {
            self.value()?
        };
        argument.multiple |= self.eat("...");
        Some(argument)
    }

    fn value(&mut self) -> Option<Argument<'s>> {
        let word = self.word()?;
        if is_token(word) {
            // A lower-case word behind it is the value that it introduces.
            let introduces = self
                .rest
                .strip_prefix(' ')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            if introduces && self.eat(" ") {
                let value = self.value()?;
                return Some(Argument { token: Some(word), ..value });
            }
            return Some(argument(word, Kind::PureToken, Some(word)));
        }
        let kind = if self.eat(":<") {
            Kind::OneOf(self.list("|")?).closed(self.eat(">"))?
        } else if self.eat(":(") {
            Kind::Block(self.list(" ")?).closed(self.eat(")"))?
        } else if self.eat(":") {
            Kind::Value(self.word()?)
        } else {
            Kind::Value(if matches!(word, "key" | "pattern") { word } else { "string" })
        };
        Some(argument(word, kind, None))
    }

    fn word(&mut self) -> Option<&'s str> {
        let end =
            self.rest.find([' ', ':', '|', '<', '>', '(', ')', '[', ']', '.']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }
}

impl Kind<'_> {
    /// This, if its bracket was closed.
    fn closed(self, closed: bool) -> Option<Self> {
        closed.then_some(self)
    }
}

fn argument<'s>(name: &'s str, kind: Kind<'s>, token: Option<&'s str>) -> Argument<'s> {
    Argument { name, kind, token, optional: false, multiple: false }
}

fn is_token(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
}

/// The arguments as the manual prints them: `key value [NX | XX] [GET]`.
pub(crate) fn display(arguments: &[Argument<'_>]) -> String {
    join(arguments, " ")
}

fn join(arguments: &[Argument<'_>], separator: &str) -> String {
    arguments.iter().map(display_one).collect::<Vec<_>>().join(separator)
}

fn display_one(argument: &Argument<'_>) -> String {
    let body = match &argument.kind {
        Kind::PureToken => String::new(),
        Kind::Value(_) => argument.name.to_owned(),
        Kind::OneOf(choices) if argument.optional => join(choices, "|"),
        Kind::OneOf(choices) => format!("<{}>", join(choices, "|")),
        Kind::Block(items) => display(items),
    };
    let whole = match argument.token {
        Some(token) if body.is_empty() => token.to_owned(),
        Some(token) => format!("{token} {body}"),
        None => body,
    };
    match (argument.multiple, argument.optional) {
        (false, false) => whole,
        (false, true) => format!("[{whole}]"),
        (true, false) => format!("{whole} [{whole} ...]"),
        (true, true) => format!("[{whole} ...]"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, display, parse};

    #[test]
    fn a_row_reads_as_its_tree() {
        let tree = parse("key value [condition:<NX|XX>] [GET] [EX seconds:integer]").unwrap();
        assert_eq!(tree.len(), 5);
        assert_eq!((tree[0].name, &tree[0].kind), ("key", &Kind::Value("key")));
        assert_eq!((tree[1].name, &tree[1].kind), ("value", &Kind::Value("string")));
        assert!(tree[2].optional && matches!(&tree[2].kind, Kind::OneOf(choices) if choices.len() == 2));
        assert_eq!((tree[3].token, &tree[3].kind), (Some("GET"), &Kind::PureToken));
        assert_eq!(
            (tree[4].token, tree[4].name, &tree[4].kind),
            (Some("EX"), "seconds", &Kind::Value("integer"))
        );
    }

    #[test]
    fn repeats_belong_to_the_item_before_them() {
        let tree = parse("key... pair:(field value)... [word...]").unwrap();
        assert!(tree.iter().all(|argument| argument.multiple));
        assert!(tree[2].optional);
        assert_eq!(display(&tree), "key [key ...] field value [field value ...] [word ...]");
    }

    #[test]
    fn what_is_not_closed_is_refused() {
        for text in ["[key", "a:<B|C", "a:(b c", "key  value", "a:", "]", "a]"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(""), Some(Vec::new()));
    }

    #[test]
    fn the_manual_prints_choices_and_options() {
        let tree = parse("key [condition:<NX|XX>] mode:<ON|OFF> [LIMIT range:(offset count)]").unwrap();
        assert_eq!(display(&tree), "key [NX|XX] <ON|OFF> [LIMIT offset count]");
    }
}
