//! Small words shared by the immediate commands: options, what may be shown back.

use std::borrow::Cow;

use crate::execute::CommandError;

/// How many bytes of an argument an error shows, as in Redis.
const SHOWN_BYTES_MAX: usize = 128;

/// Whether `argument` is `word`, whatever the case of its letters.
pub fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// `ON` or `OFF`, `YES` or `NO`: whichever pair the caller names.
pub fn one_of(argument: &[u8], yes: &str, no: &str) -> Result<bool, CommandError> {
    match () {
        () if is(argument, yes) => Ok(true),
        () if is(argument, no) => Ok(false),
        () => Err(CommandError::SYNTAX),
    }
}

/// `argument` as it may stand in an error text: cut, and lossy where it is no UTF-8.
pub fn shown(argument: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(argument.get(..SHOWN_BYTES_MAX).unwrap_or(argument))
}

/// An error whose text is built at run time; `text` begins with its code.
pub fn refusal(text: String) -> CommandError {
    CommandError::Text(Cow::Owned(text))
}

/// Whether `text` may be a client's name or library: printable ASCII without spaces. Empty counts as printable.
pub fn is_printable_word(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_recognised_in_any_case() {
        assert_eq!(one_of(b"oN", "on", "off"), Ok(true));
        assert_eq!(one_of(b"OFF", "on", "off"), Ok(false));
        assert_eq!(one_of(b"maybe", "on", "off"), Err(CommandError::SYNTAX));
    }

    #[test]
    fn what_errors_show_of_an_argument_is_bounded() {
        assert_eq!(shown(&[b'a'; 500]).len(), SHOWN_BYTES_MAX);
        assert_eq!(shown(b"\xff"), "\u{fffd}");
    }
}
