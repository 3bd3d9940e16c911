//! Contexts: what a client has seen of a key, as VC.GET gives it out and VC.SET and VC.DEL take it back.
//!
//! ```text
//! token     base64url (RFC 4648, no padding) of
//!           format u8 = 1 | key tag u32 | check u64 | context
//! context   base (hlc u64, node u64) | version vector (see storage/src/siblings/wire.rs)
//! ```
//! Integers are little-endian. The key tag names key and database; the check is a hash over the cluster's id and
//! everything else. So a token that was cut, damaged, made up or brought from another cluster is refused, and one of
//! another key is told apart. It is no signature: whoever knows the cluster's id can make one, and could as well delete
//! the key.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gyre_storage::key::murmur3_128;
use gyre_storage::siblings::VersionVector;
use gyre_storage::{Hlc, KeyRef, Record, Version};

const FORMAT: u8 = 1;
/// Format, key tag, check.
const HEAD_BYTES: usize = 13;
/// The longest token: one of a key that has been written by as many actors as a vector may know.
pub const TOKEN_BYTES_MAX: usize = 24 * 1024;

/// What a client has seen of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CausalContext {
    /// The register version that what it saw stood on.
    pub base: Version,
    /// The writes it saw.
    pub seen: VersionVector,
}

/// Why a context is refused. Displays as the error's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadContext {
    /// It is not what any node of the cluster has given out.
    #[error("BADCONTEXT the context is damaged, truncated or forged, or of another cluster")]
    Damaged,
    /// It was given out for another key, or the same in another database.
    #[error("BADCONTEXT the context belongs to another key or database")]
    Foreign,
    /// Its format is unknown here.
    #[error("BADCONTEXT the context is of a format that this node does not know, probably a newer one")]
    UnknownFormat,
}

impl CausalContext {
    /// The context of a client that has seen `record`.
    #[must_use]
    pub fn of(record: &Record) -> CausalContext {
        let state = record.sibling_state();
        CausalContext { base: state.base, seen: state.seen() }
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == CausalContext::default()
    }

    /// The greatest clock in it.
    #[must_use]
    pub fn newest(&self) -> Hlc {
        self.base.hlc.max(Hlc(self.seen.newest()))
    }

    /// Appends the binary form, without what binds it to a key.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.base.hlc.0.to_le_bytes());
        out.extend_from_slice(&self.base.node.to_le_bytes());
        self.seen.encode(out);
    }

    /// Reads what [`CausalContext::encode`] wrote; `bytes` must hold nothing else. No bytes are the context that has
    /// seen nothing.
    pub fn decode(bytes: &[u8]) -> Result<CausalContext, BadContext> {
        if bytes.is_empty() {
            return Ok(CausalContext::default());
        }
        let (hlc, rest) = bytes.split_first_chunk::<8>().ok_or(BadContext::Damaged)?;
        let (node, rest) = rest.split_first_chunk::<8>().ok_or(BadContext::Damaged)?;
        let base = Version { hlc: Hlc(u64::from_le_bytes(*hlc)), node: u64::from_le_bytes(*node) };
        match VersionVector::decode(rest) {
            Ok((seen, [])) => Ok(CausalContext { base, seen }),
            _ => Err(BadContext::Damaged),
        }
    }

    /// The token of this context for `key` of the cluster with id `cluster`; empty if nothing was seen.
    #[must_use]
    pub fn token(&self, cluster: u128, key: KeyRef<'_>) -> String {
        if self.is_empty() {
            return String::new();
        }
        let mut context = Vec::new();
        self.encode(&mut context);
        let tag = key_tag(key);
        let check = check(cluster, tag, &context);
        let bytes = [&[FORMAT][..], &tag.to_le_bytes(), &check.to_le_bytes(), &context].concat();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that was given out for `key`.
    pub fn of_token(token: &[u8], cluster: u128, key: KeyRef<'_>) -> Result<CausalContext, BadContext> {
        if token.is_empty() {
            return Ok(CausalContext::default());
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadContext::Damaged);
        }
        // Neither padding nor bits left over: one context has one token.
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| BadContext::Damaged)?;
        let (head, context) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(BadContext::Damaged)?;
        let [format, a, b, c, d, check_bytes @ ..] = *head;
        if format != FORMAT {
            return Err(BadContext::UnknownFormat);
        }
        let tag = u32::from_le_bytes([a, b, c, d]);
        if u64::from_le_bytes(check_bytes) != check(cluster, tag, context) {
            return Err(BadContext::Damaged);
        }
        if tag != key_tag(key) {
            return Err(BadContext::Foreign);
        }
        // No node gives out an empty one.
        CausalContext::decode(context).and_then(|context| match context.is_empty() {
            true => Err(BadContext::Damaged),
            false => Ok(context),
        })
    }
}

/// Names a key and its database.
#[expect(clippy::cast_possible_truncation, reason = "a part of a hash")]
fn key_tag(key: KeyRef<'_>) -> u32 {
    murmur3_128(&[&[key.db], key.key].concat()) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "a part of a hash")]
fn check(cluster: u128, tag: u32, context: &[u8]) -> u64 {
    murmur3_128(&[&cluster.to_le_bytes(), &tag.to_le_bytes()[..], &[FORMAT], context].concat()) as u64
}

#[cfg(test)]
mod tests {
    use gyre_storage::siblings::Dot;
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: u128 = 0x1234_5678;

    fn context(actors: u64) -> CausalContext {
        let mut seen = VersionVector::default();
        (1..=actors).for_each(|actor| seen.see(Dot { event: 1_000 + actor, actor }));
        CausalContext { base: Version { hlc: Hlc(7), node: 3 }, seen }
    }

    #[test]
    fn a_token_is_accepted_for_its_key_only() {
        let key = KeyRef::new(0, b"cart");
        let token = context(2).token(CLUSTER, key);
        let read = |cluster, key| CausalContext::of_token(token.as_bytes(), cluster, key);
        assert_eq!(read(CLUSTER, key), Ok(context(2)));
        assert_eq!(read(CLUSTER, KeyRef::new(0, b"cart2")), Err(BadContext::Foreign));
        assert_eq!(read(CLUSTER, KeyRef::new(1, b"cart")), Err(BadContext::Foreign));
        assert_eq!(read(CLUSTER + 1, key), Err(BadContext::Damaged));
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
    }

    #[test]
    fn nothing_seen_is_the_empty_token() {
        let key = KeyRef::new(0, b"cart");
        assert_eq!(CausalContext::default().token(CLUSTER, key), "");
        assert_eq!(CausalContext::of_token(b"", CLUSTER, key), Ok(CausalContext::default()));
        assert!(CausalContext::of(&Record::ABSENT).is_empty());
    }

    #[test]
    fn the_longest_token_fits() {
        let key = KeyRef::new(0, b"cart");
        let most = context(gyre_storage::siblings::ACTORS_MAX as u64);
        let token = most.token(CLUSTER, key);
        assert!(token.len() <= TOKEN_BYTES_MAX);
        assert_eq!(CausalContext::of_token(token.as_bytes(), CLUSTER, key), Ok(most));
        let longer = vec![b'A'; TOKEN_BYTES_MAX + 1];
        assert_eq!(CausalContext::of_token(&longer, CLUSTER, key), Err(BadContext::Damaged));
    }

    #[test]
    fn a_newer_format_is_called_by_its_name() {
        let key = KeyRef::new(0, b"cart");
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(context(1).token(CLUSTER, key).as_bytes()).unwrap();
        bytes[0] = 2;
        let token = BASE64_URL_SAFE_NO_PAD.encode(&bytes);
        let read = CausalContext::of_token(token.as_bytes(), CLUSTER, key);
        assert_eq!(read, Err(BadContext::UnknownFormat));
    }

    proptest! {
        #[test]
        fn any_other_token_is_refused(actors in 1..4u64, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let key = KeyRef::new(0, b"cart");
            let token = context(actors).token(CLUSTER, key).into_bytes();
            let at = at.index(token.len());
            let mut other = token.clone();
            other[at] = byte;
            let read = CausalContext::of_token(&other, CLUSTER, key);
            prop_assert_eq!(read.is_ok(), other == token);
            prop_assert!(at == 0 || CausalContext::of_token(&token[..at], CLUSTER, key).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_panicking(bytes in prop::collection::vec(any::<u8>(), 1..80)) {
            let key = KeyRef::new(0, b"cart");
            prop_assert!(CausalContext::of_token(&bytes, CLUSTER, key).is_err());
            let text = BASE64_URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert!(CausalContext::of_token(text.as_bytes(), CLUSTER, key).is_err());
            if let Ok(context) = CausalContext::decode(&bytes) {
                let mut again = Vec::new();
                context.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
