//! Reads that are put off until the turn ends: done together, they wait for memory together ([`gyre_storage::Store::touch`]).

use gyre_cluster::coordinator::Ticket;
use gyre_storage::KeyRef;

/// What is kept allocated for the keys of reads that are put off.
const SOON_BYTES_KEPT: usize = 256 << 10;

/// Reads that are put off until the turn ends, to be done together.
#[derive(Debug, Default)]
pub struct SoonReads {
    reads: Vec<SoonRead>,
    /// Their keys, one after the other.
    keys: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct SoonRead {
    ticket: Ticket,
    db: u8,
    position: u64,
    key_at: usize,
    key_end: usize,
}

impl SoonReads {
    /// Adds a read of `key`.
    pub fn push(&mut self, ticket: Ticket, key: KeyRef<'_>) {
        let key_at = self.keys.len();
        self.keys.extend_from_slice(key.key);
        let key_end = self.keys.len();
        self.reads.push(SoonRead { ticket, db: key.db, position: key.position, key_at, key_end });
    }

    /// All of them, `at_a_time`.
    pub fn chunks(
        &self,
        at_a_time: usize,
    ) -> impl Iterator<Item = impl Iterator<Item = (Ticket, KeyRef<'_>)> + Clone> {
        let read = |read: &SoonRead| {
            let key = self.keys.get(read.key_at..read.key_end).unwrap_or_default();
            (read.ticket, KeyRef { db: read.db, key, position: read.position })
        };
        self.reads.chunks(at_a_time).map(move |reads| reads.iter().map(read))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// Forgets them; keeps a bounded part of the memory.
    pub fn clear(&mut self) {
        self.reads.clear();
        self.keys.clear();
        self.keys.shrink_to(SOON_BYTES_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_read_comes_back_once_and_in_order() {
        let keys: Vec<Vec<u8>> = (0..5).map(|length| vec![b'k'; length]).collect();
        let mut reads = SoonReads::default();
        for (db, key) in (0..).zip(&keys) {
            reads.push(Ticket::Nobody, KeyRef::new(db, key));
        }
        let chunks: Vec<Vec<KeyRef<'_>>> =
            reads.chunks(2).map(|chunk| chunk.map(|(_, key)| key).collect()).collect();
        let expected: Vec<KeyRef<'_>> = (0..).zip(&keys).map(|(db, key)| KeyRef::new(db, key)).collect();
        assert_eq!(chunks, [&expected[..2], &expected[2..4], &expected[4..]]);
        reads.clear();
        assert!(reads.is_empty() && reads.chunks(2).next().is_none());
    }

    #[test]
    fn a_flood_of_long_keys_is_not_kept_in_memory() {
        let mut reads = SoonReads::default();
        let key = vec![b'k'; 4 * SOON_BYTES_KEPT];
        reads.push(Ticket::Nobody, KeyRef::new(0, &key));
        reads.clear();
        assert!(reads.keys.capacity() <= SOON_BYTES_KEPT);
    }
}
