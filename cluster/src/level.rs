//! Consistency levels, and counting answers against them.

/// How many replicas of a key must answer before a request counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consistency {
    /// Any one replica.
    One,
    /// A majority of the preference list.
    Quorum,
    /// Every replica of the preference list.
    All,
}

impl Consistency {
    /// How many of `replicas` must answer. `replicas` is the length of the preference list, so that a majority is
    /// one of the *membership* and two sides of a broken network can never both have it.
    #[must_use]
    pub const fn needed(self, replicas: usize) -> usize {
        match self {
            Consistency::One => 1,
            Consistency::Quorum => replicas / 2 + 1,
            Consistency::All => {
                if replicas == 0 {
                    1
                } else {
                    replicas
                }
            }
        }
    }

    /// The name the `CONSISTENCY` command uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Consistency::One => "ONE",
            Consistency::Quorum => "QUORUM",
            Consistency::All => "ALL",
        }
    }

    /// Its byte in peer messages.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Consistency::One => 1,
            Consistency::Quorum => 2,
            Consistency::All => 3,
        }
    }

    /// The level of a byte in a peer message; `None` for bytes that name no level.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Consistency> {
        match byte {
            1 => Some(Consistency::One),
            2 => Some(Consistency::Quorum),
            3 => Some(Consistency::All),
            _ => None,
        }
    }
}

/// Whose answers count when replicas are down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quorums {
    /// The next nodes clockwise stand in for replicas that are down; their answers count (Dynamo, section 4.6).
    #[default]
    Sloppy,
    /// Only replicas count.
    Strict,
}

impl Quorums {
    /// The name the `CONSISTENCY` command uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Quorums::Sloppy => "SLOPPY",
            Quorums::Strict => "STRICT",
        }
    }
}

/// What an operation asks for: how many answers, and whose count. A [`Consistency`] alone is sloppy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level {
    /// How many replicas must answer.
    pub consistency: Consistency,
    /// Whether stand-ins count.
    pub quorums: Quorums,
}

impl Level {
    /// Set in the byte of a strict level in peer messages.
    const STRICT_BIT: u8 = 0x10;

    /// `consistency` of real replicas only.
    #[must_use]
    pub const fn strict(consistency: Consistency) -> Level {
        Level { consistency, quorums: Quorums::Strict }
    }

    /// As [`Consistency::needed`].
    #[must_use]
    pub const fn needed(self, replicas: usize) -> usize {
        self.consistency.needed(replicas)
    }

    /// Its byte in peer messages.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self.quorums {
            Quorums::Sloppy => self.consistency.to_byte(),
            Quorums::Strict => self.consistency.to_byte() | Level::STRICT_BIT,
        }
    }

    /// The level of a byte in a peer message; `None` for bytes that name no level.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Level> {
        let quorums = if byte & Level::STRICT_BIT == 0 { Quorums::Sloppy } else { Quorums::Strict };
        match Consistency::from_byte(byte & !Level::STRICT_BIT) {
            Some(consistency) => Some(Level { consistency, quorums }),
            None => None,
        }
    }
}

impl From<Consistency> for Level {
    fn from(consistency: Consistency) -> Level {
        Level { consistency, quorums: Quorums::default() }
    }
}

/// Where a count of answers stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More answers may still come and are wanted.
    Pending,
    /// Enough replicas have answered.
    Met,
    /// Too many replicas have failed: the level can no longer be met.
    Lost,
}

/// Counts the answers of up to eight replicas, each known by its index in the preference list. A replica that
/// answers twice counts once; one that failed may still succeed later, one that succeeded cannot fail any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    needed: u8,
    replicas: u8,
    acked: u8,
    failed: u8,
}

impl Quorum {
    /// Nothing answered yet; `needed` of `replicas` must. A `needed` above `replicas` is lost from the start.
    #[must_use]
    pub fn new(needed: usize, replicas: usize) -> Quorum {
        let clamp = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        Quorum { needed: clamp(needed), replicas: clamp(replicas), acked: 0, failed: 0 }
    }

    /// Replica `index` has done what was asked.
    pub fn ack(&mut self, index: usize) {
        self.acked |= bit(index);
        self.failed &= !self.acked;
    }

    /// Replica `index` will not answer: it refused, died, or was never asked.
    pub fn fail(&mut self, index: usize) {
        self.failed |= bit(index) & !self.acked;
    }

    /// Whether replica `index` has acknowledged.
    #[must_use]
    pub fn has_acked(&self, index: usize) -> bool {
        self.acked & bit(index) != 0
    }

    /// Whether replica `index` has neither acknowledged nor failed.
    #[must_use]
    pub fn is_pending(&self, index: usize) -> bool {
        index < usize::from(self.replicas) && (self.acked | self.failed) & bit(index) == 0
    }

    /// How many have acknowledged.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.acked.count_ones() as usize
    }

    /// Whether all have acknowledged.
    #[must_use]
    pub fn is_unanimous(&self) -> bool {
        self.acked() >= usize::from(self.replicas)
    }

    /// How many must.
    #[must_use]
    pub fn needed(&self) -> usize {
        usize::from(self.needed)
    }

    /// Whether no answer is outstanding.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.acked() + self.failed.count_ones() as usize >= usize::from(self.replicas)
    }

    /// Where the count stands.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let still_possible = usize::from(self.replicas).saturating_sub(self.failed.count_ones() as usize);
        if self.acked() >= self.needed() {
            Verdict::Met
        } else if still_possible < self.needed() {
            Verdict::Lost
        } else {
            Verdict::Pending
        }
    }
}

/// The bit of place `index` in a mask of up to eight places; 0 beyond.
pub(crate) fn bit(index: usize) -> u8 {
    u32::try_from(index).ok().and_then(|shift| 1u8.checked_shl(shift)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_a_majority_of_the_membership() {
        for (replicas, one, quorum, all) in
            [(1, 1, 1, 1), (2, 1, 2, 2), (3, 1, 2, 3), (4, 1, 3, 4), (5, 1, 3, 5), (6, 1, 4, 6), (7, 1, 4, 7)]
        {
            assert_eq!(Consistency::One.needed(replicas), one);
            assert_eq!(Consistency::Quorum.needed(replicas), quorum);
            assert_eq!(Consistency::All.needed(replicas), all);
        }
    }

    #[test]
    fn an_empty_preference_list_can_never_be_satisfied() {
        for level in [Consistency::One, Consistency::Quorum, Consistency::All] {
            assert_eq!(Quorum::new(level.needed(0), 0).verdict(), Verdict::Lost);
        }
    }

    #[test]
    fn levels_survive_their_byte() {
        for level in [Consistency::One, Consistency::Quorum, Consistency::All] {
            for level in [Level::from(level), Level::strict(level)] {
                assert_eq!(Level::from_byte(level.to_byte()), Some(level));
            }
        }
        for byte in [0, 9, 0x10, 0x22, 0xff] {
            assert_eq!(Level::from_byte(byte), None);
        }
    }

    /// Needed, replicas, then answers in order (`+i` acknowledged, `-i` failed), then verdict, acked, settled.
    const TABLE: &str = "
        1 1  .           pending 0 no
        1 1  +0          met     1 yes
        1 1  -0          lost    0 yes
        2 3  +0          pending 1 no
        2 3  +0 +0       pending 1 no
        2 3  +0 +2       met     2 no
        2 3  +0 +1 +2    met     3 yes
        2 3  -0          pending 0 no
        2 3  -0 -1       lost    0 no
        2 3  -0 -0       pending 0 no
        2 3  +1 -0       pending 1 no
        2 3  +1 -0 -2    lost    1 yes
        2 3  +1 -1       pending 1 no
        2 3  -1 +1 +0    met     2 no
        3 3  +0 +1       pending 2 no
        3 3  +0 +1 -2    lost    2 yes
        3 3  +0 +1 +2    met     3 yes
        4 7  +0 +1 +2 +6 met     4 no
        4 7  -0 -1 -2    pending 0 no
        4 7  -0 -1 -2 -3 lost    0 no
        3 2  .           lost    0 no
        2 3  +9          pending 0 no
    ";

    #[test]
    fn quorum_counting_follows_the_table() {
        for line in TABLE.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (events, expected) = words[2..].split_at(words.len() - 5);
            let mut quorum = Quorum::new(words[0].parse().unwrap(), words[1].parse().unwrap());
            for event in events.iter().filter(|event| **event != ".") {
                let index = event[1..].parse().unwrap();
                if event.starts_with('+') { quorum.ack(index) } else { quorum.fail(index) }
            }
            let verdict = format!("{:?}", quorum.verdict()).to_lowercase();
            let settled = if quorum.is_settled() { "yes" } else { "no" };
            assert_eq!([&*verdict, &*quorum.acked().to_string(), settled], *expected, "{line}");
        }
    }
}
