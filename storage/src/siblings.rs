//! Dotted version vector sets: the values of a key that nobody has yet replaced, and what was seen of it in all.
//!
//! After Preguiça, Baquero, Almeida, Fonte and Gonçalves, *Dotted Version Vectors: Logical Clocks for Optimistic
//! Replication* (2010) and *Brief Announcement: Efficient Causality Tracking …* (2012), in the compact form of Almeida
//! et al., *Scalable and Accurate Causality Tracking for Eventually Consistent Stores* (2014), section 5. Every write is
//! an event of one *actor*; a *dot* names it. A *version vector* says of each actor up to which event all were seen. A
//! set is a version vector and the *siblings*: those values whose dots it has seen and not seen replaced. So a client
//! that writes with the context of what it read (a version vector, too) replaces exactly that, and two clients that
//! write through one actor do not see each other's values replaced.
//!
//! Deviations:
//! - Events are clock values and rise in jumps, where the papers count 1, 2, 3. Nothing relies on a number's
//!   predecessor: that a vector has seen event *n* of an actor means that it has seen all of that actor's events up to
//!   *n*, since an actor always writes from all that it has written. So siblings carry their dots instead of standing in
//!   the order of their numbers, which costs two bytes for the newest of an actor, and they have an order that all
//!   replicas agree on: the newest is the one that commands without contexts see.
//! - Siblings may expire.
//! - The value that was written without a context (by SET) is not in the set. It is the event of an actor of its own,
//!   [`PLAIN`], so that contexts can say whether they have seen it.

use crate::version::UnixMillis;

#[cfg(test)]
mod tests;
mod wire;

/// The actor of what was written without a context. No node's actor has this number.
pub const PLAIN: u64 = 0;

/// Up to how many actors an encoded vector may know.
pub const ACTORS_MAX: usize = 1_024;

/// How many siblings an encoded set may hold. Those who write keep far below.
pub const SIBLINGS_ENCODED_MAX: usize = 1_024;

/// The bytes are not a version vector, or not a sibling set: how a decoder refuses damaged or hostile input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed sibling set")]
pub struct MalformedSiblings;

/// Names one write. Ordered by event, so that of any two dots all replicas agree which is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// When: greater than every event that its actor had seen of the key. A hybrid clock value, as [`crate::Hlc`].
    pub event: u64,
    /// The node incarnation that wrote.
    pub actor: u64,
}

/// Up to which event of each actor everything was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector(Vec<(u64, u64)>);

/// A value that nobody is known to have replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sibling<'a> {
    /// The write that it came by.
    pub dot: Dot,
    /// From when on it counts as deleted.
    pub expiry: Option<UnixMillis>,
    /// The value.
    pub value: &'a [u8],
}

/// What was seen of a key, and the values that remain of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiblingSet<'a> {
    seen: VersionVector,
    /// By ascending actor and event; every dot is covered by `seen`.
    siblings: Vec<Sibling<'a>>,
}

impl VersionVector {
    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many actors it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each actor with its last event, by ascending actor.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().map(|&(actor, event)| Dot { event, actor })
    }

    /// The last event seen of `actor`, 0 if none.
    #[must_use]
    pub fn of(&self, actor: u64) -> u64 {
        self.0
            .binary_search_by_key(&actor, |entry| entry.0)
            .ok()
            .and_then(|at| self.0.get(at))
            .map_or(0, |e| e.1)
    }

    /// Whether the write `dot` was seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        dot.event <= self.of(dot.actor)
    }

    /// Whether everything that `other` has seen was seen.
    #[must_use]
    pub fn descends(&self, other: &VersionVector) -> bool {
        other.iter().all(|dot| self.covers(dot))
    }

    /// The greatest event of any actor, 0 if nothing was seen.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.0.iter().map(|entry| entry.1).max().unwrap_or(0)
    }

    /// Sees `dot` and all before it of its actor.
    pub fn see(&mut self, dot: Dot) {
        if dot.event == 0 {
            return;
        }
        match self.0.binary_search_by_key(&dot.actor, |entry| entry.0) {
            Ok(at) => {
                if let Some(entry) = self.0.get_mut(at) {
                    entry.1 = entry.1.max(dot.event);
                }
            }
            Err(at) => self.0.insert(at, (dot.actor, dot.event)),
        }
    }

    /// Sees everything that `other` has seen.
    pub fn join(&mut self, other: &VersionVector) {
        other.iter().for_each(|dot| self.see(dot));
    }

    /// Keeps only the actors that satisfy `keep`. Forgetting makes no promise false: it claims to have seen less.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.0.retain(|entry| keep(entry.0));
    }
}

impl<'a> SiblingSet<'a> {
    /// What was seen.
    #[must_use]
    pub fn seen(&self) -> &VersionVector {
        &self.seen
    }

    /// The values that remain, by ascending actor and event.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling<'a>] {
        &self.siblings
    }

    fn holds(&self, dot: Dot) -> bool {
        self.siblings.binary_search_by_key(&place(dot), |sibling| place(sibling.dot)).is_ok()
    }

    /// The union of two replicas' knowledge: a value stays if both hold it, or one holds it and the other has not seen
    /// it. Commutes, associates, is idempotent.
    #[must_use]
    pub fn join(&self, other: &SiblingSet<'a>) -> SiblingSet<'a> {
        let stays = |sibling: &&Sibling<'a>, there: &SiblingSet<'a>| {
            !there.seen.covers(sibling.dot) || there.holds(sibling.dot)
        };
        let mut siblings: Vec<Sibling<'a>> =
            self.siblings.iter().filter(|sibling| stays(sibling, other)).copied().collect();
        let added = other.siblings.iter().filter(|sibling| !self.seen.covers(sibling.dot));
        siblings.extend(added);
        siblings.sort_unstable_by_key(|sibling| place(sibling.dot));
        let mut seen = self.seen.clone();
        seen.join(&other.seen);
        SiblingSet { seen, siblings }
    }

    /// Whether joining `other` would change nothing.
    #[must_use]
    pub fn descends(&self, other: &SiblingSet<'_>) -> bool {
        let has_replaced =
            |sibling: &Sibling<'_>| other.seen.covers(sibling.dot) && !other.holds(sibling.dot);
        self.seen.descends(&other.seen) && !self.siblings.iter().any(has_replaced)
    }

    /// Drops what `context` has seen, and has seen it from now on. How many values that were.
    pub fn discard(&mut self, context: &VersionVector) -> usize {
        let before = self.siblings.len();
        self.siblings.retain(|sibling| !context.covers(sibling.dot));
        self.seen.join(context);
        before - self.siblings.len()
    }

    /// Has seen `dot` from now on, which is not one of the values.
    pub fn see(&mut self, dot: Dot) {
        self.seen.see(dot);
    }

    /// Drops the values that do not satisfy `keep`, as if they had been replaced.
    pub fn retain(&mut self, mut keep: impl FnMut(&Sibling<'a>) -> bool) {
        self.siblings.retain(|sibling| keep(sibling));
    }

    /// Adds a value. Its dot must be one that was not seen.
    pub fn put(&mut self, sibling: Sibling<'a>) {
        debug_assert!(!self.seen.covers(sibling.dot), "a dot names one write");
        self.seen.see(sibling.dot);
        let at = self.siblings.partition_point(|other| place(other.dot) < place(sibling.dot));
        self.siblings.insert(at, sibling);
    }

    /// Forgets what was seen of actors of which no value remains. Only on a new base, on which none of them can have
    /// written: elsewhere a value that was replaced might come back.
    pub fn forget_others(&mut self, actor: u64) {
        let siblings = &self.siblings;
        self.seen.retain(|seen| seen == actor || siblings.iter().any(|sibling| sibling.dot.actor == seen));
    }
}

/// Siblings stand by actor, then by event: those of one actor together.
fn place(dot: Dot) -> (u64, u64) {
    (dot.actor, dot.event)
}
