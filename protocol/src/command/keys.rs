//! Which arguments of a command are keys.

use super::flags::{KeyFlags, key_flags};

/// One run of keys among the arguments: a range that begins at a fixed position.
///
/// Redis has more kinds (a count argument, a keyword); no command of the table needs them yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// Index of the first key, the command's name being 0 and a subcommand's 1.
    pub begin: usize,
    /// The last key: so many arguments behind the first, or, when negative, -1 the last argument of all, …
    pub last: isize,
    /// From one key to the next.
    pub step: usize,
    /// What the command does to these keys.
    pub flags: KeyFlags,
}

impl KeySpec {
    /// Indexes of the keys in a request of `arguments` arguments; none when it is too short.
    pub fn indexes(&self, arguments: usize) -> impl Iterator<Item = usize> + use<> {
        let last = match usize::try_from(self.last) {
            Ok(last) => Some(self.begin.saturating_add(last)).filter(|last| *last < arguments),
            Err(_) => arguments.checked_sub(self.last.unsigned_abs()),
        };
        // `0..0` where there is no last key.
        (self.begin..last.map_or(0, |last| last + 1)).step_by(self.step.max(1))
    }
}

/// A row's way to say `KeySpec`; `flags` as words.
pub(crate) const fn keys(begin: usize, last: isize, step: usize, flags: &str) -> KeySpec {
    KeySpec { begin, last, step, flags: key_flags(flags) }
}

#[cfg(test)]
mod tests {
    use super::keys;

    fn indexes(spec: super::KeySpec, arguments: usize) -> Vec<usize> {
        spec.indexes(arguments).collect()
    }

    #[test]
    fn a_range_ends_at_its_last_key_or_at_the_last_argument() {
        assert_eq!(indexes(keys(1, 0, 1, "RO"), 3), [1]);
        assert_eq!(indexes(keys(1, 1, 1, "RO"), 4), [1, 2]);
        assert_eq!(indexes(keys(1, -1, 1, "RO"), 4), [1, 2, 3]);
        assert_eq!(indexes(keys(1, -1, 2, "RO"), 5), [1, 3]);
        assert_eq!(indexes(keys(2, -2, 1, "RO"), 5), [2, 3]);
    }

    #[test]
    fn a_request_that_is_too_short_has_no_keys() {
        assert!(indexes(keys(1, 0, 1, "RO"), 1).is_empty());
        assert!(indexes(keys(3, -1, 1, "RO"), 3).is_empty());
        assert!(indexes(keys(1, -5, 1, "RO"), 3).is_empty());
    }
}
