//! The arguments of one request: a view of the read buffer, or an owned copy of it.

use std::fmt;
use std::iter::FusedIterator;

/// Where one argument lies in the bytes of its request.
///
/// 32 bits suffice, since [`crate::Limits::request_bytes_max`] is cut to `u32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// The arguments of one request, the command's name first.
///
/// A pair of pointers: copying it is free, and it allocates nothing.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    pub(crate) fn new(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self { bytes, spans }
    }

    /// How many arguments there are, the command's name included.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no argument left.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`, or `None` behind the last.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| self.slice(*span))
    }

    /// The argument at `index`, or an empty one behind the last: for commands whose arity is checked already.
    #[inline]
    #[must_use]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// The arguments from `index` on: none when it lies behind the last.
    #[inline]
    #[must_use]
    pub fn from(&self, index: usize) -> Self {
        Self { bytes: self.bytes, spans: self.spans.get(index..).unwrap_or_default() }
    }

    /// The arguments in order.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> ArgsIter<'a> {
        ArgsIter { bytes: self.bytes, spans: self.spans.iter() }
    }

    /// A copy that outlives the read buffer.
    #[must_use]
    pub fn to_owned(&self) -> OwnedArgs {
        self.iter().collect()
    }

    /// Bytes of all arguments together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }

    #[inline]
    fn slice(&self, span: Span) -> &'a [u8] {
        slice(self.bytes, span)
    }
}

/// The bytes of `span`; empty when `bytes` is not the buffer that was parsed, which is a caller's mistake.
#[inline]
fn slice(bytes: &[u8], span: Span) -> &[u8] {
    bytes.get(span.start as usize..span.end as usize).unwrap_or_default()
}

impl<'a> IntoIterator for Args<'a> {
    type Item = &'a [u8];
    type IntoIter = ArgsIter<'a>;

    #[inline]
    fn into_iter(self) -> ArgsIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|arg| arg.escape_ascii().to_string())).finish()
    }
}

/// Iterator over [`Args`].
#[derive(Clone)]
pub struct ArgsIter<'a> {
    bytes: &'a [u8],
    spans: std::slice::Iter<'a, Span>,
}

impl<'a> Iterator for ArgsIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.spans.next().map(|span| slice(self.bytes, *span))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.spans.size_hint()
    }
}

impl DoubleEndedIterator for ArgsIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.spans.next_back().map(|span| slice(self.bytes, *span))
    }
}

impl ExactSizeIterator for ArgsIter<'_> {}
impl FusedIterator for ArgsIter<'_> {}

/// Arguments that own their bytes: queued commands, and tests of commands.
///
/// ```
/// let owned: gyre_protocol::OwnedArgs = ["SET", "key", "value"].into_iter().collect();
/// assert_eq!(owned.args().arg(1), b"key");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedArgs {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedArgs {
    /// The view that commands take.
    #[must_use]
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans)
    }

    /// Adds one argument; refuses it, and answers false, when all together would pass 4 GiB.
    pub fn push(&mut self, arg: &[u8]) -> bool {
        let start = self.bytes.len();
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(start.saturating_add(arg.len())))
        else {
            return false;
        };
        self.bytes.extend_from_slice(arg);
        self.spans.push(Span { start, end });
        true
    }
}

impl<A: AsRef<[u8]>> FromIterator<A> for OwnedArgs {
    fn from_iter<I: IntoIterator<Item = A>>(items: I) -> Self {
        let mut owned = Self::default();
        for item in items {
            let fits = owned.push(item.as_ref());
            debug_assert!(fits, "arguments of one request stay under 4 GiB");
        }
        owned
    }
}

#[cfg(test)]
mod tests {
    use super::OwnedArgs;

    #[test]
    fn an_index_behind_the_last_argument_reads_as_empty() {
        let owned: OwnedArgs = ["GET", "k"].into_iter().collect();
        let args = owned.args();
        assert_eq!(args.get(2), None);
        assert_eq!(args.arg(2), b"");
        assert!(args.from(7).is_empty());
        assert_eq!(args.from(1).arg(0), b"k");
    }

    #[test]
    fn an_owned_copy_equals_its_source() {
        let owned: OwnedArgs = ["MSET", "a", "", "b", "2"].into_iter().collect();
        assert_eq!(owned.args().to_owned(), owned);
        assert_eq!(owned.args().bytes(), 7);
        assert_eq!(owned.args().iter().next_back(), Some(b"2".as_slice()));
    }
}
