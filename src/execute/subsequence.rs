//! The longest common subsequence of two strings (LCS), by the table of dynamic programming that Redis uses.
//!
//! Where there are several of the same length, the walk back through the table decides as Redis's does, so that the
//! answers are equal.

/// The table may not take more than this, as in Redis (`proto-max-bulk-len`).
const TABLE_BYTES_MAX: u64 = gyre_cluster::modify::STRING_BYTES_MAX;

/// Runs of equal bytes: where in the first string, where in the second. Ends are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// First and last index in the first string.
    pub first: (usize, usize),
    /// First and last index in the second string.
    pub second: (usize, usize),
}

impl Match {
    /// How many bytes match.
    pub fn length(&self) -> usize {
        self.first.1 - self.first.0 + 1
    }
}

/// What two strings have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// The longest common subsequence.
    pub bytes: Vec<u8>,
    /// The runs it consists of, from the last to the first.
    pub matches: Vec<Match>,
}

/// How many steps [`longest_common`] takes: the size of its table.
pub fn steps(first: &[u8], second: &[u8]) -> u64 {
    (first.len() as u64 + 1).saturating_mul(second.len() as u64 + 1)
}

/// Whether the table for these strings would be too large.
pub fn is_too_large(first: &[u8], second: &[u8]) -> bool {
    steps(first, second).saturating_mul(4) > TABLE_BYTES_MAX
}

/// The longest common subsequence of two strings for which [`is_too_large`] does not hold.
pub fn longest_common(first: &[u8], second: &[u8]) -> Common {
    let table = Table::new(first, second);
    let mut common = Common::default();
    let mut run: Option<Match> = None;
    let (mut i, mut j) = (first.len(), second.len());
    while let (Some(above), Some(left)) = (i.checked_sub(1), j.checked_sub(1)) {
        match (first.get(above), second.get(left)) {
            (Some(a), Some(b)) if a == b => {
                common.bytes.push(*a);
                // Runs end at the first mismatch, so that a match always continues the run there is.
                let last = run.map_or((above, left), |run| (run.first.1, run.second.1));
                run = Some(Match { first: (above, last.0), second: (left, last.1) });
                (i, j) = (above, left);
            }
            _ => {
                if table.at(above, j) > table.at(i, left) {
                    i = above;
                } else {
                    j = left;
                }
                common.matches.extend(run.take());
            }
        }
    }
    common.matches.extend(run);
    common.bytes.reverse();
    common
}

/// The length of the longest common subsequence of every pair of prefixes.
struct Table {
    lengths: Vec<u32>,
    columns: usize,
}

impl Table {
    fn new(first: &[u8], second: &[u8]) -> Table {
        let columns = second.len() + 1;
        let mut lengths = vec![0u32; columns * (first.len() + 1)];
        let mut rows = lengths.chunks_exact_mut(columns);
        let mut above: &mut [u32] = rows.next().unwrap_or_default();
        for (a, row) in first.iter().zip(rows) {
            let mut left = 0;
            let corners = above.iter().zip(above.iter().skip(1));
            for ((b, cell), (diagonal, up)) in second.iter().zip(row.iter_mut().skip(1)).zip(corners) {
                left = if a == b { diagonal + 1 } else { left.max(*up) };
                *cell = left;
            }
            above = row;
        }
        Table { lengths, columns }
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.lengths.get(i * self.columns + j).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_manual_is_answered_as_there() {
        let common = longest_common(b"ohmytext", b"mynewtext");
        assert_eq!(common.bytes, b"mytext");
        assert_eq!(
            common.matches,
            [Match { first: (4, 7), second: (5, 8) }, Match { first: (2, 3), second: (0, 1) },]
        );
        assert_eq!(common.matches[0].length(), 4);
    }

    #[test]
    fn nothing_in_common_is_empty() {
        for (first, second) in [("", ""), ("", "a"), ("abc", ""), ("abc", "xyz")] {
            assert_eq!(longest_common(first.as_bytes(), second.as_bytes()), Common::default());
        }
        assert_eq!(longest_common(b"same", b"same").matches, [Match { first: (0, 3), second: (0, 3) }]);
    }

    #[test]
    fn large_tables_are_refused() {
        let (large, small) = (vec![0; 20_000], vec![0; 100]);
        assert!(is_too_large(&large, &large));
        assert!(!is_too_large(&large, &small));
    }

    fn is_subsequence(part: &[u8], whole: &[u8]) -> bool {
        let mut rest = whole.iter();
        part.iter().all(|byte| rest.any(|other| other == byte))
    }

    /// The plain recursion: exponential, and so for short strings only.
    fn length(first: &[u8], second: &[u8]) -> usize {
        match (first.split_last(), second.split_last()) {
            (Some((a, first_rest)), Some((b, second_rest))) if a == b => length(first_rest, second_rest) + 1,
            (Some((_, first_rest)), Some((_, second_rest))) => {
                length(first_rest, second).max(length(first, second_rest))
            }
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn the_answer_is_common_and_longest(first in "[ab]{0,9}", second in "[abc]{0,9}") {
            let (first, second) = (first.as_bytes(), second.as_bytes());
            let common = longest_common(first, second);
            prop_assert!(is_subsequence(&common.bytes, first) && is_subsequence(&common.bytes, second));
            prop_assert_eq!(common.bytes.len(), length(first, second));
            let joined: Vec<u8> =
                common.matches.iter().rev().flat_map(|run| first[run.first.0..=run.first.1].to_vec()).collect();
            prop_assert_eq!(&joined, &common.bytes);
            let joined: Vec<u8> =
                common.matches.iter().rev().flat_map(|run| second[run.second.0..=run.second.1].to_vec()).collect();
            prop_assert_eq!(&joined, &common.bytes);
        }
    }
}
