//! The leaves of one slot's tree, and how they are kept.
//!
//! ```text
//! head     0 | slot u16 BE  =  depth u8 | keys varint | sum u64 LE | bytes of the leaves varint
//! leaves   1 | slot u16 BE  =  2^depth × { keys varint | [sum u64 LE, if there are keys] }      unless depth is 0
//! ```
//! The 2^depth leaves cut the slot's prefixes evenly. The depth follows the number of keys, so that a leaf has up to
//! [`LEAF_KEYS`] on average; a slot with few keys is one leaf, which its head holds. Head and leaves are written
//! together and must agree; where they do not, the slot is hashed anew.

use crate::encode::{put_varint, take_varint};
use crate::error::StorageError;
use crate::key::Slot;
use crate::tree::RangeSum;
use crate::tree::marks::{Mask, SEGMENTS_PER_SLOT};

/// Keys a leaf has at most, on the average of its slot, before the slot gets deeper.
const LEAF_KEYS: u64 = 64;
/// Keys per leaf below which the slot gets shallower: not so near the above that a slot goes to and fro.
const LEAF_KEYS_MIN: u64 = LEAF_KEYS / 4;
/// Bits of a prefix below its slot: no leaf is finer than one prefix.
pub(crate) const DEPTH_MAX: u8 = 18;

const KIND_HEAD: u8 = 0;
const KIND_LEAVES: u8 = 1;
/// Bytes of the key of a head or of leaves.
const KEY_BYTES: u64 = 3;

/// What is kept in memory of a slot's tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sum: RangeSum,
    pub(crate) depth: u8,
    leaves_bytes: u32,
}

/// The tree of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaves {
    depth: u8,
    /// 2^depth sums.
    sums: Vec<RangeSum>,
}

/// The key of a slot's head in the tree family.
pub(crate) fn head_key(slot: Slot) -> [u8; 3] {
    key(KIND_HEAD, slot)
}

/// The key of a slot's leaves in the tree family.
pub(crate) fn leaves_key(slot: Slot) -> [u8; 3] {
    key(KIND_LEAVES, slot)
}

/// Where heads end in the tree family.
pub(crate) const HEADS_END: &[u8] = &[KIND_HEAD + 1];

fn key(kind: u8, slot: Slot) -> [u8; 3] {
    let [high, low] = slot.to_be_bytes();
    [kind, high, low]
}

/// The slot of a head's key; `None` if it is not one.
pub(crate) fn slot_of_head(key: &[u8]) -> Option<Slot> {
    match key {
        [KIND_HEAD, high, low] => {
            Some(Slot::from_be_bytes([*high, *low])).filter(|slot| *slot < crate::key::SLOTS)
        }
        _ => None,
    }
}

impl Head {
    /// Bytes of the slot's entries.
    pub(crate) fn bytes(&self) -> u64 {
        if self.sum.keys == 0 {
            return 0;
        }
        let mut head = Vec::new();
        self.encode(&mut head);
        let leaves = if self.depth > 0 { KEY_BYTES + u64::from(self.leaves_bytes) } else { 0 };
        KEY_BYTES + head.len() as u64 + leaves
    }

    /// How many leaves there are.
    pub(crate) fn leaves(&self) -> u64 {
        if self.sum.keys == 0 { 0 } else { 1 << self.depth }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.depth);
        put_varint(out, usize::try_from(self.sum.keys).unwrap_or(usize::MAX));
        out.extend_from_slice(&self.sum.sum.to_le_bytes());
        put_varint(out, self.leaves_bytes as usize);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Head> {
        let (&depth, rest) = bytes.split_first()?;
        let (keys, rest) = take_varint(rest)?;
        let (sum, rest) = rest.split_first_chunk::<8>()?;
        let (leaves_bytes, rest) = take_varint(rest)?;
        let sum = RangeSum { sum: u64::from_le_bytes(*sum), keys: keys as u64 };
        let is_whole = depth <= DEPTH_MAX && keys > 0 && rest.is_empty();
        is_whole.then_some(Head { sum, depth, leaves_bytes: u32::try_from(leaves_bytes).ok()? })
    }
}

impl Leaves {
    /// The tree of a slot, from the sums of its prefixes: offset in the slot, ascending, and sum.
    pub(crate) fn of_prefixes(prefixes: &[(u32, RangeSum)]) -> Leaves {
        let keys = prefixes.iter().map(|(_, sum)| sum.keys).sum();
        let mut leaves = Leaves::empty(depth_for(keys));
        for (offset, sum) in prefixes {
            leaves.add(*offset, *sum);
        }
        leaves
    }

    fn empty(depth: u8) -> Leaves {
        Leaves { depth, sums: vec![RangeSum::default(); 1 << depth] }
    }

    /// Counts `sum` in the leaf of the prefix at `offset` of the slot.
    pub(crate) fn add(&mut self, offset: u32, sum: RangeSum) {
        let leaf = (offset >> (DEPTH_MAX - self.depth)) as usize;
        if let Some(own) = self.sums.get_mut(leaf) {
            *own += sum;
        }
    }

    /// Empties the leaves that segments of `mask` touch and gives them as half-open ranges of offsets in the slot.
    pub(crate) fn empty_touched(&mut self, mask: Mask) -> Vec<(u32, u32)> {
        let leaf_width = 1u32 << (DEPTH_MAX - self.depth);
        let segment_width = (1u32 << DEPTH_MAX) / SEGMENTS_PER_SLOT;
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for segment in (0..SEGMENTS_PER_SLOT).filter(|segment| mask & (1 << segment) != 0) {
            let from = segment * segment_width / leaf_width * leaf_width;
            let end = ((segment + 1) * segment_width).next_multiple_of(leaf_width);
            match ranges.last_mut().filter(|last| last.1 >= from) {
                Some(last) => last.1 = end,
                None => ranges.push((from, end)),
            }
        }
        for (from, end) in &ranges {
            let leaves = (from / leaf_width) as usize..(end / leaf_width) as usize;
            self.sums.get_mut(leaves).unwrap_or_default().fill(RangeSum::default());
        }
        ranges
    }

    /// The sum of the leaves that lie wholly in `from..end` (offsets in the slot), and the rest: the parts of the range
    /// that cut through a leaf.
    pub(crate) fn sum_of(&self, from: u32, end: u32) -> (RangeSum, Vec<(u32, u32)>) {
        let width = 1u32 << (DEPTH_MAX - self.depth);
        let (first, last) = (from.next_multiple_of(width), end / width * width);
        if first > last {
            return (RangeSum::default(), vec![(from, end)]);
        }
        let mut sum = RangeSum::default();
        for leaf in self.sums.get((first / width) as usize..(last / width) as usize).unwrap_or_default() {
            sum += *leaf;
        }
        let rest = [(from, first), (last, end)];
        (sum, rest.into_iter().filter(|(from, end)| from < end).collect())
    }

    /// Whether there are so many keys that the slot should be cut finer.
    pub(crate) fn is_too_shallow(&self) -> bool {
        self.depth < depth_for(self.total().keys)
    }

    /// Merges leaves while they have very few keys.
    pub(crate) fn shrink(&mut self) {
        let keys = self.total().keys;
        while self.depth > 0 && keys < LEAF_KEYS_MIN << self.depth {
            self.depth -= 1;
            self.sums = self.sums.chunks(2).map(|pair| pair.iter().copied().sum()).collect();
        }
    }

    pub(crate) fn total(&self) -> RangeSum {
        self.sums.iter().copied().sum()
    }

    /// The head to these leaves, and their encoding (empty if the head holds the only one).
    pub(crate) fn encode(&self) -> (Head, Vec<u8>) {
        let mut out = Vec::new();
        for leaf in self.sums.iter().filter(|_| self.depth > 0) {
            put_varint(&mut out, usize::try_from(leaf.keys).unwrap_or(usize::MAX));
            if leaf.keys > 0 {
                out.extend_from_slice(&leaf.sum.to_le_bytes());
            }
        }
        let leaves_bytes = u32::try_from(out.len()).unwrap_or(u32::MAX);
        (Head { sum: self.total(), depth: self.depth, leaves_bytes }, out)
    }

    /// Reads leaves, which must be those of `head`; `bytes` is what is stored beside it.
    pub(crate) fn decode(head: Head, bytes: Option<&[u8]>) -> Result<Leaves, StorageError> {
        if head.depth == 0 {
            return Ok(Leaves { depth: 0, sums: vec![head.sum] });
        }
        let leaves = bytes.and_then(|bytes| decode_sums(head.depth, bytes));
        let leaves = leaves.map(|sums| Leaves { depth: head.depth, sums });
        leaves
            .filter(|leaves| leaves.total() == head.sum)
            .ok_or_else(|| StorageError::damaged("the leaves of a slot's tree do not match its head"))
    }
}

fn decode_sums(depth: u8, bytes: &[u8]) -> Option<Vec<RangeSum>> {
    // A leaf takes a byte at least: nothing is allocated ahead of what is there.
    if depth > DEPTH_MAX || bytes.len() < 1 << depth {
        return None;
    }
    let mut sums = Vec::with_capacity(1 << depth);
    let mut rest = bytes;
    while sums.len() < 1 << depth {
        let (keys, after) = take_varint(rest)?;
        rest = after;
        let mut sum = RangeSum { sum: 0, keys: keys as u64 };
        if keys > 0 {
            let (bytes, after) = rest.split_first_chunk::<8>()?;
            sum.sum = u64::from_le_bytes(*bytes);
            rest = after;
        }
        sums.push(sum);
    }
    rest.is_empty().then_some(sums)
}

fn depth_for(keys: u64) -> u8 {
    (0..DEPTH_MAX).find(|depth| keys <= LEAF_KEYS << depth).unwrap_or(DEPTH_MAX)
}
