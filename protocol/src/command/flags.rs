//! Sets of named bits: what a command is, who may run it, what it does to its keys.
//!
//! The names and their order are Redis's; rows of the table spell them as words, which are read at compile time.

/// Declares a set of named bits with a constant for each and a `const fn` that reads words.
macro_rules! bit_set {
    ($(#[$doc:meta])* $set:ident, $(#[$parse_doc:meta])* $parse:ident, { $($(#[$bit_doc:meta])* $bit:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $set(u32);

        impl $set {
            /// The names, in the order in which `COMMAND` prints them.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// No bit.
            pub const NONE: Self = Self(0);

            $($(#[$bit_doc])* pub const $bit: Self = $parse($name);)+

            /// Whether all bits of `other` are in this set.
            #[inline]
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both sets.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The names of the bits in this set.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::NAMES.iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| *name)
            }
        }

        $(#[$parse_doc])*
        pub(crate) const fn $parse(words: &str) -> $set {
            $set(bits(words, $set::NAMES))
        }
    };
}

bit_set! {
    /// What a command is.
    Flags,
    /// Reads words such as `"write denyoom"`.
    flags,
    {
        /// May change data.
        WRITE = "write",
        /// Reads data.
        READONLY = "readonly",
        /// Refused when memory is full.
        DENYOOM = "denyoom",
        /// For operators.
        ADMIN = "admin",
        /// Publishes or subscribes.
        PUBSUB = "pubsub",
        /// Not from a script.
        NOSCRIPT = "noscript",
        /// May block its client.
        BLOCKING = "blocking",
        /// Allowed while data is loaded.
        LOADING = "loading",
        /// Allowed on a replica without its primary.
        STALE = "stale",
        /// Not shown by MONITOR.
        SKIP_MONITOR = "skip_monitor",
        /// Not logged when slow.
        SKIP_SLOWLOG = "skip_slowlog",
        /// Reaches a slot that is being imported.
        ASKING = "asking",
        /// Takes constant or logarithmic time.
        FAST = "fast",
        /// Allowed before authentication.
        NO_AUTH = "no_auth",
        /// May be called without any key.
        NO_MANDATORY_KEYS = "no_mandatory_keys",
        /// Not allowed while data is loaded asynchronously.
        NO_ASYNC_LOADING = "no_async_loading",
        /// Not within a transaction.
        NO_MULTI = "no_multi",
        /// Keys do not stand at fixed positions.
        MOVABLEKEYS = "movablekeys",
        /// Allowed while a script blocks the server.
        ALLOW_BUSY = "allow_busy",
    }
}

bit_set! {
    /// The ACL categories of a command.
    Categories,
    /// Reads words such as `"write string slow"`.
    categories,
    {
        /// Names, existence and expiry of keys.
        KEYSPACE = "keyspace",
        /// Reads values.
        READ = "read",
        /// Writes values.
        WRITE = "write",
        /// Sets.
        SET = "set",
        /// Sorted sets.
        SORTEDSET = "sortedset",
        /// Lists.
        LIST = "list",
        /// Hashes.
        HASH = "hash",
        /// Strings.
        STRING = "string",
        /// Bit fields of strings.
        BITMAP = "bitmap",
        /// HyperLogLogs.
        HYPERLOGLOG = "hyperloglog",
        /// Geographic indexes.
        GEO = "geo",
        /// Streams.
        STREAM = "stream",
        /// Publish and subscribe.
        PUBSUB = "pubsub",
        /// For operators.
        ADMIN = "admin",
        /// Constant or logarithmic time.
        FAST = "fast",
        /// Everything else.
        SLOW = "slow",
        /// May block.
        BLOCKING = "blocking",
        /// Harmful in the wrong hands.
        DANGEROUS = "dangerous",
        /// The connection itself.
        CONNECTION = "connection",
        /// Transactions.
        TRANSACTION = "transaction",
        /// Scripts.
        SCRIPTING = "scripting",
    }
}

bit_set! {
    /// What a command does to the keys of one [`crate::KeySpec`].
    KeyFlags,
    /// Reads words such as `"RW access update"`.
    key_flags,
    {
        /// Reads the value, does not change it.
        RO = "RO",
        /// Changes the value, using what is there.
        RW = "RW",
        /// Overwrites the value.
        OW = "OW",
        /// Deletes the key.
        RM = "RM",
        /// User data comes out.
        ACCESS = "access",
        /// User data goes in, replacing some.
        UPDATE = "update",
        /// User data goes in, beside what is there.
        INSERT = "insert",
        /// User data goes away.
        DELETE = "delete",
        /// It routes like a key but names none.
        NOT_KEY = "not_key",
        /// There may be more keys than this.
        INCOMPLETE = "incomplete",
        /// Options change what happens to the key.
        VARIABLE_FLAGS = "variable_flags",
    }
}

/// The bits of `words`, which are separated by single spaces; an unknown word does not compile.
const fn bits(words: &str, names: &[&str]) -> u32 {
    let words = words.as_bytes();
    let (mut bits, mut start) = (0, 0);
    while start < words.len() {
        let mut end = start;
        while end < words.len() && byte(words, end) != b' ' {
            end += 1;
        }
        bits |= 1 << position(words, start, end, names);
        start = end + 1;
    }
    bits
}

/// Where the word `words[start..end]` stands in `names`.
const fn position(words: &[u8], start: usize, end: usize, names: &[&str]) -> usize {
    let mut index = 0;
    while index < names.len() {
        if same(words, start, end, name(names, index)) {
            return index;
        }
        index += 1;
    }
    panic!("every word of a row is a known name")
}

const fn same(words: &[u8], start: usize, end: usize, name: &[u8]) -> bool {
    if end - start != name.len() {
        return false;
    }
    let mut offset = 0;
    while offset < name.len() {
        if byte(words, start + offset) != byte(name, offset) {
            return false;
        }
        offset += 1;
    }
    true
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a bad index does not compile")]
const fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes[at]
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a bad index does not compile")]
const fn name<'n>(names: &[&'n str], at: usize) -> &'n [u8] {
    names[at].as_bytes()
}

#[cfg(test)]
mod tests {
    use super::{Categories, Flags, flags};

    #[test]
    fn words_become_bits_and_bits_their_words() {
        let set = flags("write denyoom fast");
        assert!(set.contains(Flags::WRITE) && set.contains(Flags::DENYOOM.with(Flags::FAST)));
        assert!(!set.contains(Flags::READONLY) && !set.contains(Flags::READONLY.with(Flags::WRITE)));
        assert_eq!(set.names().collect::<Vec<_>>(), ["write", "denyoom", "fast"]);
        assert_eq!(flags(""), Flags::NONE);
    }

    #[test]
    fn names_fit_into_the_bits() {
        assert!(Flags::NAMES.len() <= 32 && Categories::NAMES.len() <= 32);
    }
}
