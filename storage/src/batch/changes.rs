//! Taking encoded batches apart.

use super::{HEADER_BYTES, TAG_DELETE, TAG_DELETE_FAMILY, TAG_PUT, TAG_PUT_FAMILY};
use crate::encode::take_varint;
use crate::error::StorageError;
use crate::family::Family;

/// One change of an encoded batch: a put, or with no value a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub(crate) family: Family,
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

/// Takes an encoded batch apart.
pub(crate) fn changes(encoded: &[u8]) -> impl Iterator<Item = Result<Change<'_>, StorageError>> {
    let mut rest = encoded.get(HEADER_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take_change(rest);
        rest = taken.map_or(&[], |(_, after)| after);
        Some(taken.map(|(change, _)| change).ok_or_else(|| StorageError::damaged("a batch does not parse")))
    })
}

fn take_change(bytes: &[u8]) -> Option<(Change<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (family, rest) = match tag {
        TAG_PUT | TAG_DELETE => (Family::Rows, rest),
        TAG_PUT_FAMILY | TAG_DELETE_FAMILY => {
            let (id, rest) = take_varint(rest)?;
            (Family::ALL.into_iter().find(|family| *family as usize == id)?, rest)
        }
        _ => return None,
    };
    let (key_len, rest) = take_varint(rest)?;
    let (key, rest) = rest.split_at_checked(key_len)?;
    if matches!(tag, TAG_DELETE | TAG_DELETE_FAMILY) {
        return Some((Change { family, key, value: None }, rest));
    }
    let (value_len, rest) = take_varint(rest)?;
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some((Change { family, key, value: Some(value) }, rest))
}
