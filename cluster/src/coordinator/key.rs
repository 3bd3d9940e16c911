//! Keys that outlive the buffer they arrived in.

use gyre_storage::KeyRef;

/// Keys up to this length are kept without an allocation, unless said otherwise.
const INLINE_BYTES: usize = 46;

/// An owned key; up to `INLINE` bytes (255 at most) without an allocation.
#[derive(Clone, Debug)]
pub(crate) struct KeyBuf<const INLINE: usize = INLINE_BYTES> {
    db: u8,
    position: u64,
    bytes: Bytes<INLINE>,
}

#[derive(Clone, Debug)]
enum Bytes<const INLINE: usize> {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl<const INLINE: usize> KeyBuf<INLINE> {
    /// A copy of `key`.
    pub(crate) fn of(key: KeyRef<'_>) -> KeyBuf<INLINE> {
        let mut inline = [0; INLINE];
        let bytes = match (inline.get_mut(..key.key.len()), u8::try_from(key.key.len())) {
            (Some(target), Ok(len)) => {
                target.copy_from_slice(key.key);
                Bytes::Inline { len, bytes: inline }
            }
            _ => Bytes::Heap(key.key.into()),
        };
        KeyBuf { db: key.db, position: key.position, bytes }
    }

    /// The key.
    pub(crate) fn key(&self) -> KeyRef<'_> {
        let key = match &self.bytes {
            Bytes::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Bytes::Heap(bytes) => bytes,
        };
        KeyRef { db: self.db, key, position: self.position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_come_back() {
        for length in [0, 1, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 300, 70_000] {
            let bytes = vec![7u8; length];
            let key = KeyRef::new(3, &bytes);
            assert_eq!(<KeyBuf>::of(key).key(), key);
            assert_eq!(KeyBuf::<200>::of(key).key(), key);
        }
    }
}
