//! Node ids.

use std::fmt;
use std::str::FromStr;

use gyre_storage::key::murmur3_128;

/// How many hex digits [`NodeId`] is displayed with: Redis Cluster clients expect 40.
const SHOWN_DIGITS: usize = 40;
/// How many of them are the id itself; the rest are derived from it.
const ID_DIGITS: usize = 16;

/// The name of a node: random, chosen once per data directory, never zero, never reused.
///
/// Shown as 40 hex digits, as Redis Cluster clients expect of a node id: 16 are the id, 24 the top 96 bits of
/// `murmur3_x64_128(id)`, which also catch a mistyped id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The id `raw`, or `None` for zero, which stands for "no node" in versions.
    #[must_use]
    pub const fn new(raw: u64) -> Option<NodeId> {
        if raw == 0 { None } else { Some(NodeId(raw)) }
    }

    /// An id from 64 random bits (zero becomes one).
    #[must_use]
    pub const fn from_random(bits: u64) -> NodeId {
        NodeId(if bits == 0 { 1 } else { bits })
    }

    /// The 24 digits that follow the id when it is shown.
    fn check(self) -> u128 {
        murmur3_128(&self.0.to_be_bytes()) >> 32
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:024x}", self.0, self.check())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is not a node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node id is 16 hex digits, not all zero, or the 40 that a node shows")]
pub struct InvalidNodeId;

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    /// Reads the 16 digits of the id, or the 40 of [`Display`](fmt::Display), whose last 24 must fit the first 16.
    fn from_str(text: &str) -> Result<NodeId, InvalidNodeId> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || (text.len() != ID_DIGITS && text.len() != SHOWN_DIGITS) {
            return Err(InvalidNodeId);
        }
        let (id, check) = text.split_at_checked(ID_DIGITS).ok_or(InvalidNodeId)?;
        let raw = u64::from_str_radix(id, 16).map_err(|_| InvalidNodeId)?;
        let id = NodeId::new(raw).ok_or(InvalidNodeId)?;
        let fits = check.is_empty() || u128::from_str_radix(check, 16) == Ok(id.check());
        if fits { Ok(id) } else { Err(InvalidNodeId) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_id_is_read_back_from_both_forms(raw in 1u64..) {
            let id = NodeId(raw);
            let shown = id.to_string();
            prop_assert_eq!(shown.len(), SHOWN_DIGITS);
            prop_assert_eq!(shown.parse::<NodeId>(), Ok(id));
            prop_assert_eq!(shown[..ID_DIGITS].parse::<NodeId>(), Ok(id));
            prop_assert_eq!(shown.to_uppercase().parse::<NodeId>(), Ok(id));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,45}") {
            if let Ok(id) = text.parse::<NodeId>() {
                prop_assert!(id.0 != 0);
            }
        }
    }

    #[test]
    fn a_mistyped_id_is_refused() {
        let shown = NodeId(0xfeed).to_string();
        let mut mistyped = shown.clone().into_bytes();
        mistyped[3] = b'7';
        assert_eq!(String::from_utf8(mistyped).unwrap().parse::<NodeId>(), Err(InvalidNodeId));
        for text in ["", "1", "+00000000000000f", "0000000000000000", "000000000000000g", &shown[..39]] {
            assert_eq!(text.parse::<NodeId>(), Err(InvalidNodeId), "{text}");
        }
    }

    #[test]
    fn zero_is_never_an_id() {
        assert_eq!(NodeId::new(0), None);
        assert_eq!(NodeId::from_random(0), NodeId(1));
        assert_eq!(NodeId::from_random(9), NodeId(9));
    }
}
