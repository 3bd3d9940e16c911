//! The encoded forms of version vectors and sibling sets, in rows, records, messages and contexts.
//!
//! ```text
//! vector   count varint | count × { actor u64 | event u64 }                                    by ascending actor
//! set      format u8 = 1 | vector
//!          count varint | count × { actor's place in the vector varint | events behind its last varint
//!                                   | expiry ms varint (0: none) | value length varint }       by ascending dot
//!          values
//! swept    format u8 = 2 | as above, but for 0 instead of the length of a swept value, which must have an expiry, and
//!          the length + 1 of any other: a set of which at least one value was swept
//! ```
//! Integers are little-endian, varints LEB128 in their shortest form. One set has one encoding.

use crate::encode::{put_varint64, take_varint64};
use crate::version::UnixMillis;

use super::{
    ACTORS_MAX, Dot, MalformedSiblings, PLAIN, SIBLINGS_ENCODED_MAX, Sibling, SiblingSet, VersionVector,
};

const FORMAT: u8 = 1;
const FORMAT_SWEPT: u8 = 2;
const ENTRY_BYTES: usize = 16;

impl VersionVector {
    /// Appends the encoded form. Actors over [`ACTORS_MAX`] are left out: the vector then claims to have seen less.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let count = self.0.len().min(ACTORS_MAX);
        put_varint64(out, count as u64);
        for (actor, event) in self.0.iter().take(count) {
            out.extend_from_slice(&actor.to_le_bytes());
            out.extend_from_slice(&event.to_le_bytes());
        }
    }

    /// Reads what [`VersionVector::encode`] wrote off the front of `bytes`; gives what follows, too.
    pub fn decode(bytes: &[u8]) -> Result<(VersionVector, &[u8]), MalformedSiblings> {
        let (count, rest) = take_count(bytes, ACTORS_MAX)?;
        let (entries, rest) = rest.split_at_checked(count * ENTRY_BYTES).ok_or(MalformedSiblings)?;
        let (words, _) = entries.as_chunks::<8>();
        let (pairs, _) = words.as_chunks::<2>();
        let pairs =
            pairs.iter().map(|[actor, event]| (u64::from_le_bytes(*actor), u64::from_le_bytes(*event)));
        let vector = VersionVector(pairs.collect());
        let is_in_order = vector.0.is_sorted_by(|a, b| a.0 < b.0) && vector.0.iter().all(|entry| entry.1 > 0);
        if is_in_order { Ok((vector, rest)) } else { Err(MalformedSiblings) }
    }
}

impl<'a> SiblingSet<'a> {
    /// Appends the encoded form. The set must not know more than [`ACTORS_MAX`] actors nor hold more than
    /// [`SIBLINGS_ENCODED_MAX`] values.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.seen.len() <= ACTORS_MAX, "who writes folds actors");
        debug_assert!(self.siblings.len() <= SIBLINGS_ENCODED_MAX, "who writes merges siblings");
        let has_swept = self.swept() > 0;
        out.push(if has_swept { FORMAT_SWEPT } else { FORMAT });
        self.seen.encode(out);
        put_varint64(out, self.siblings.len() as u64);
        for sibling in &self.siblings {
            let Dot { event, actor } = sibling.dot;
            let place = self.seen.0.partition_point(|entry| entry.0 < actor);
            put_varint64(out, place as u64);
            put_varint64(out, self.seen.of(actor).saturating_sub(event));
            put_varint64(out, sibling.expiry.map_or(0, |at| at.0));
            let length = sibling.value.len() as u64;
            put_varint64(out, if has_swept && !sibling.is_swept { length + 1 } else { length });
        }
        self.siblings.iter().for_each(|sibling| out.extend_from_slice(sibling.value));
    }

    /// Reads what [`SiblingSet::encode`] wrote; `bytes` must hold nothing else. Allocates no more than `bytes` pay for.
    pub fn decode(bytes: &'a [u8]) -> Result<SiblingSet<'a>, MalformedSiblings> {
        let (&format, rest) = bytes.split_first().ok_or(MalformedSiblings)?;
        if format != FORMAT && format != FORMAT_SWEPT {
            return Err(MalformedSiblings);
        }
        let may_be_swept = format == FORMAT_SWEPT;
        let (seen, rest) = VersionVector::decode(rest)?;
        let (count, mut rest) = take_count(rest, SIBLINGS_ENCODED_MAX)?;
        // Each head takes four bytes at least.
        let mut heads = Vec::with_capacity(count.min(rest.len() / 4));
        for _ in 0..count {
            let head = take_head(&seen, rest, may_be_swept)?;
            rest = head.2;
            heads.push((head.0, head.1));
        }
        let mut siblings = Vec::with_capacity(heads.len());
        for (mut sibling, length) in heads {
            (sibling.value, rest) = rest.split_at_checked(length).ok_or(MalformedSiblings)?;
            siblings.push(sibling);
        }
        let is_in_order = siblings.is_sorted_by(|a, b| super::place(a.dot) < super::place(b.dot));
        let set = SiblingSet { seen, siblings };
        let is_of_format = (set.swept() > 0) == may_be_swept;
        if rest.is_empty() && is_in_order && is_of_format { Ok(set) } else { Err(MalformedSiblings) }
    }
}

/// A sibling that has no value yet, the length of its value, and what follows its head.
fn take_head<'a>(
    seen: &VersionVector,
    bytes: &'a [u8],
    may_be_swept: bool,
) -> Result<(Sibling<'a>, usize, &'a [u8]), MalformedSiblings> {
    let (place, rest) = take_varint(bytes)?;
    let (behind, rest) = take_varint(rest)?;
    let (expiry, rest) = take_varint(rest)?;
    let (length, rest) = take_varint(rest)?;
    let place = usize::try_from(place).map_err(|_| MalformedSiblings)?;
    let &(actor, last) = seen.0.get(place).filter(|entry| entry.0 != PLAIN).ok_or(MalformedSiblings)?;
    let event = last.checked_sub(behind).filter(|&event| event > 0).ok_or(MalformedSiblings)?;
    let expiry = (expiry > 0).then_some(UnixMillis(expiry));
    let is_swept = may_be_swept && length == 0;
    if is_swept && expiry.is_none() {
        return Err(MalformedSiblings);
    }
    let length = if may_be_swept { length.saturating_sub(1) } else { length };
    let length = usize::try_from(length).map_err(|_| MalformedSiblings)?;
    Ok((Sibling { dot: Dot { event, actor }, expiry, value: &[], is_swept }, length, rest))
}

fn take_count(bytes: &[u8], most: usize) -> Result<(usize, &[u8]), MalformedSiblings> {
    let (count, rest) = take_varint(bytes)?;
    let count = usize::try_from(count).ok().filter(|&count| count <= most).ok_or(MalformedSiblings)?;
    Ok((count, rest))
}

fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8]), MalformedSiblings> {
    take_varint64(bytes).ok_or(MalformedSiblings)
}
