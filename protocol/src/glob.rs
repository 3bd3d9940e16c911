//! Redis's glob patterns (`KEYS`, `SCAN MATCH`, `CONFIG GET`).

/// Whether all of `text` matches `pattern`.
///
/// `*` any bytes, `?` one byte, `[abc]`, `[a-z]`, `[^a]` one byte of a class, `\` takes the next byte as it is.
/// An unclosed class ends with the pattern. Matching is on bytes; letters are compared as they are.
///
/// The language of Redis's `stringmatchlen`, without its recursion: only the latest `*` is ever tried again, so the
/// work is at most pattern × text and the stack is flat. Redis answers "no" behind 1,000 nested stars
/// (CVE-2024-31228); here such a pattern simply matches what it says.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // With one remembered star (the latest) nothing is lost: a later star can take whatever an earlier one could.
    let (mut pattern, mut text) = (pattern, text);
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            let rest = skip_stars(rest);
            if rest.is_empty() {
                return true;
            }
            star = Some((rest, text));
            pattern = rest;
            continue;
        }
        let step = match text {
            [byte, after @ ..] => one(pattern, *byte).map(|rest| (rest, after)),
            [] if pattern.is_empty() => return true,
            [] => return false,
        };
        (pattern, text) = match (step, &mut star) {
            (Some(step), _) => step,
            // The star takes one byte more.
            (None, Some((rest, from))) => {
                let [_, after @ ..] = *from else { return false };
                *from = after;
                (*rest, after)
            }
            (None, None) => return false,
        };
    }
}

/// Whether `pattern` has no special character, so that it matches itself only.
#[must_use]
pub fn is_literal(pattern: &[u8]) -> bool {
    !pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

fn skip_stars(pattern: &[u8]) -> &[u8] {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    pattern.get(stars..).unwrap_or_default()
}

/// What is left of `pattern`, which does not begin with a star, when its first element matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', b'^', rest @ ..] => class(rest, byte).and_then(|(inside, rest)| (!inside).then_some(rest)),
        [b'[', rest @ ..] => class(rest, byte).and_then(|(inside, rest)| inside.then_some(rest)),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
    }
}

/// Whether `byte` is in the class, and what follows its `]`.
fn class(mut rest: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let mut inside = false;
    loop {
        rest = match rest {
            [b'\\', literal, after @ ..] => {
                inside |= *literal == byte;
                after
            }
            [b']', after @ ..] => return Some((inside, after)),
            [] => return Some((inside, rest)),
            [low, b'-', high, after @ ..] => {
                inside |= (*low.min(high)..=*low.max(high)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                inside |= *literal == byte;
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{is_literal, matches};

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        for text in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} matches {text}");
        }
        for text in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} does not match {text}");
        }
    }

    #[test]
    fn patterns_match_as_in_redis() {
        check("", &[""], &["a"]);
        check("*", &["", "a", "abc"], &[]);
        check("h?llo", &["hello", "hallo"], &["hllo", "heello", "hell"]);
        check("h*llo", &["hllo", "heeeello"], &["hell", "hllo!"]);
        check("h[ae]llo", &["hello", "hallo"], &["hillo", "h[llo"]);
        check("h[^e]llo", &["hallo", "h^llo"], &["hello", "hllo"]);
        check("h[a-c]llo", &["hallo", "hbllo", "hcllo"], &["hdllo", "h-llo"]);
        check("h[c-a]llo", &["hbllo"], &["hdllo"]);
        check(r"h\*llo", &["h*llo"], &["hello"]);
        check(r"[\]]", &["]"], &["\\"]);
        check("a[bc", &["ab", "ac"], &["a", "ad", "abc"]);
        check("a*b*c", &["abc", "aXbXc", "abbcbc"], &["ab", "acb", "abcX"]);
        check("**a**", &["a", "xay"], &["", "b"]);
        check(r"a\", &[r"a\"], &["a"]);
        check("user:*:name", &["user:1:name", "user::name"], &["user:1:names"]);
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_exponential_time() {
        let pattern = "*a".repeat(900) + "*b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(20_000).as_bytes()));
        assert!(matches("*a".repeat(2_000).as_bytes(), "a".repeat(5_000).as_bytes()));
    }

    #[test]
    fn literal_patterns_are_known() {
        assert!(is_literal(b"maxmemory"));
        for pattern in ["a*", "?", "[a]", r"\a"] {
            assert!(!is_literal(pattern.as_bytes()));
        }
    }
}
