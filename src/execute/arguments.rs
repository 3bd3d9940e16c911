//! The arguments of a command that outlives its read buffer.

/// An owned copy of a request's arguments, the command name first: two allocations, whatever their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Arguments {
    /// How many arguments there are, the command name included.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none, not even a command name.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Argument `index` (0 is the command name), or an empty slice past the end: arity was checked before.
    pub fn get(&self, index: usize) -> &[u8] {
        let start =
            if index == 0 { 0 } else { self.ends.get(index - 1).copied().unwrap_or(self.bytes.len()) };
        let end = self.ends.get(index).copied().unwrap_or(self.bytes.len());
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// The arguments from `first` on.
    pub fn from(&self, first: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        (first..self.len()).map(|index| self.get(index))
    }
}

impl<'a> FromIterator<&'a [u8]> for Arguments {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(arguments: I) -> Arguments {
        let mut out = Arguments::default();
        for argument in arguments {
            out.bytes.extend_from_slice(argument);
            out.ends.push(out.bytes.len());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back_in_order_and_past_the_end_is_empty() {
        let arguments: Arguments = [&b"set"[..], b"", b"value"].into_iter().collect();
        assert_eq!(arguments.len(), 3);
        assert_eq!(
            (arguments.get(0), arguments.get(1), arguments.get(2)),
            (&b"set"[..], &b""[..], &b"value"[..])
        );
        assert_eq!(arguments.get(3), b"");
        assert_eq!(arguments.from(1).count(), 2);
    }
}
