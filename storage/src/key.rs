//! Keys and where they stand on the ring: slot, position, row-key prefix.

use std::io::Cursor;

use crc::{CRC_16_XMODEM, Crc, Table};

/// How many slots the ring is cut into, as in Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// One of the 16,384 arcs of the ring. Always below [`SLOTS`].
pub type Slot = u16;

/// A key of a database together with its place on the ring, computed once where the key enters the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyRef<'a> {
    /// The database number of `SELECT`; part of the row key, not of the slot.
    pub db: u8,
    /// The key's bytes.
    pub key: &'a [u8],
    /// The top 64 bits of the key's position: 14 bits of slot, then 50 bits of murmur3.
    pub position: u64,
}

impl<'a> KeyRef<'a> {
    /// Places `key` of database `db` on the ring.
    #[must_use]
    pub fn new(db: u8, key: &'a [u8]) -> KeyRef<'a> {
        KeyRef { db, key, position: position(key) }
    }

    /// The slot of the key: `CRC16(hash tag or key) mod 16384`.
    #[must_use]
    pub fn slot(&self) -> Slot {
        (self.position >> 50) as Slot
    }

    /// The first four bytes of the key's rows on disk: slot, then 18 bits of hash.
    #[must_use]
    pub fn prefix(&self) -> u32 {
        (self.position >> 32) as u32
    }

    /// A hash of the key *and* its database, for conflict checks, lock stripes and caches.
    #[must_use]
    pub fn hash64(&self) -> u64 {
        // The position's low bits are murmur3 output; only the database must still be mixed in.
        (self.position ^ u64::from(self.db)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The part of `key` that decides its slot: what stands in the first `{…}` if that is not empty, else all of it.
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    let Some(rest) = key.get(open + 1..) else { return key };
    match rest.iter().position(|&b| b == b'}') {
        Some(close) if close > 0 => rest.get(..close).unwrap_or(key),
        _ => key,
    }
}

/// The slot of `key`, exactly as the Redis Cluster specification defines it.
#[must_use]
pub fn slot_of(key: &[u8]) -> Slot {
    crc16(hash_tag(key)) % SLOTS
}

/// The top 64 bits of `slot << 114 | murmur3_x64_128(key) >> 14`.
#[must_use]
pub fn position(key: &[u8]) -> u64 {
    let slot = u64::from(slot_of(key)) << 50;
    slot | ((murmur3_128(key) >> 64) as u64 >> 14)
}

/// `murmur3_x64_128` with seed 0 (Appleby's reference), for key positions and vnode tokens.
#[must_use]
pub fn murmur3_128(bytes: &[u8]) -> u128 {
    // Reading from a slice cannot fail; the crate's signature is that of io::Read.
    murmur3::murmur3_x64_128(&mut Cursor::new(bytes), 0).unwrap_or_default()
}

/// CRC16-CCITT (XModem), as in the Redis Cluster specification, appendix A: sixteen bytes at a time.
const CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

fn crc16(bytes: &[u8]) -> u16 {
    CRC16.checksum(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_agree_with_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"bar"), 5061);
        assert_eq!(slot_of(b""), 0);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
    }

    #[test]
    fn position_carries_slot_in_its_top_bits() {
        for key in [&b"a"[..], b"foo", b"{tag}x", b"", &[0xff; 100]] {
            let placed = KeyRef::new(3, key);
            assert_eq!(placed.slot(), slot_of(key));
            assert_eq!(u64::from(placed.prefix()), placed.position >> 32);
        }
    }

    #[test]
    fn hash_separates_databases() {
        assert_ne!(KeyRef::new(0, b"k").hash64(), KeyRef::new(1, b"k").hash64());
    }
}
