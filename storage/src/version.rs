//! Versions: the one total order that decides which row of a cell is newest.

use std::fmt;

/// A hybrid logical clock value: 48 bits of Unix milliseconds, then 16 bits of counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The smallest clock value: before every stamp.
    pub const ZERO: Hlc = Hlc(0);

    /// The first clock value of millisecond `ms` (values past 2^48 - 1 are clamped to it).
    #[must_use]
    pub const fn from_millis(ms: u64) -> Hlc {
        const MILLIS_MAX: u64 = (1 << 48) - 1;
        let clamped = if ms > MILLIS_MAX { MILLIS_MAX } else { ms };
        Hlc(clamped << 16)
    }

    /// The wall-clock part, in Unix milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }
}

/// When and where a row was written: the clock of its coordinator, then the coordinator's node id.
///
/// Versions are compared the same way on every node, so every replica picks the same newest row.
/// Two rows of equal version are the same row.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The coordinator's hybrid logical clock at the time of the write.
    pub hlc: Hlc,
    /// The coordinator's node id; breaks ties between equal clocks.
    pub node: u64,
}

impl Version {
    /// Before every version a node can stamp. Stands for "no row".
    pub const ZERO: Version = Version { hlc: Hlc::ZERO, node: 0 };
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{:016x}", self.hlc.millis(), self.hlc.0 & 0xffff, self.node)
    }
}

/// An absolute wall-clock time, in milliseconds since the Unix epoch. Expiry times are of this type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);
