//! Which databases a flush is of.

/// A run of databases: `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Databases {
    /// The lowest.
    pub first: u8,
    /// The highest; not below `first`.
    pub last: u8,
}

impl Databases {
    /// Database `db` alone.
    #[must_use]
    pub fn one(db: u8) -> Databases {
        Databases { first: db, last: db }
    }

    /// All of a server that has `count` of them, 1 to 256.
    #[must_use]
    pub fn all(count: usize) -> Databases {
        Databases { first: 0, last: u8::try_from(count.saturating_sub(1)).unwrap_or(u8::MAX) }
    }

    /// Each of them, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        self.first..=self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_both_its_ends() {
        assert_eq!(Databases::one(3).iter().collect::<Vec<_>>(), [3]);
        assert_eq!(Databases::all(3).iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(Databases::all(256).iter().count(), 256);
        assert_eq!(Databases::all(1), Databases::one(0));
    }
}
