//! Reading and writing the bytes of the cluster's own documents and handshakes: little-endian, bounded, no panics.

/// The bytes are not what they should be: how every decoder of this crate refuses damaged or hostile input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes")]
pub struct Malformed;

/// What is left of some bytes.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// A text of at most `bytes_max` bytes, as [`put_text`] wrote it.
    pub(crate) fn text(&mut self, bytes_max: usize) -> Result<String, Malformed> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.bytes.split_at_checked(length).ok_or(Malformed)?;
        if length > bytes_max {
            return Err(Malformed);
        }
        self.bytes = rest;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| Malformed)
    }

    /// A list of at most `count_max` items, as [`put_count`] introduced it. Allocates as the items arrive.
    pub(crate) fn list<T>(
        &mut self,
        count_max: usize,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::from(self.u16()?);
        if count > count_max {
            return Err(Malformed);
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// An item that may be missing, as [`put_option`] wrote it.
    pub(crate) fn option<T>(
        &mut self,
        item: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { item(self).map(Some) } else { Ok(None) }
    }

    /// Refuses bytes after the end.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Appends a text of at most 65,535 bytes; the owners of texts bound them far below.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends how many items follow: at most 65,535; the owners of lists bound them below.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("lists and texts are bounded where they are made");
    out.extend_from_slice(&count.to_le_bytes());
}

/// Appends an item that may be missing.
pub(crate) fn put_option<T>(out: &mut Vec<u8>, item: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(item.is_some()));
    if let Some(item) = item {
        put(out, item);
    }
}
