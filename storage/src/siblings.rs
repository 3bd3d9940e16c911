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
//! - Siblings may expire. Those that were *swept* have left their values behind and nothing else.
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
    /// The value; empty if it was swept.
    pub value: &'a [u8],
    /// Whether the value has expired and was freed ([`crate::Store::sweep`]). It is shown to nobody, by whatever clock.
    pub is_swept: bool,
}

/// What was seen of a key, and the values that remain of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiblingSet<'a> {
    seen: VersionVector,
    /// By ascending actor and event; every dot is covered by `seen`.
    siblings: Vec<Sibling<'a>>,
}

impl<'a> Sibling<'a> {
    /// The value that the write `dot` has put.
    #[must_use]
    pub fn new(dot: Dot, expiry: Option<UnixMillis>, value: &'a [u8]) -> Sibling<'a> {
        Sibling { dot, expiry, value, is_swept: false }
    }

    /// Whether readers are shown it at `now`.
    #[must_use]
    pub fn is_live(&self, now: UnixMillis) -> bool {
        !self.is_swept && self.expiry.is_none_or(|at| at > now)
    }
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

    fn find(&self, dot: Dot) -> Option<&Sibling<'a>> {
        let at = self.siblings.binary_search_by_key(&place(dot), |sibling| place(sibling.dot)).ok()?;
        self.siblings.get(at)
    }

    fn holds(&self, dot: Dot) -> bool {
        self.find(dot).is_some()
    }

    /// The union of two replicas' knowledge: a value stays if both hold it, or one holds it and the other has not seen
    /// it. Commutes, associates, is idempotent. Of a value and the same swept it keeps the former.
    #[must_use]
    pub fn join(&self, other: &SiblingSet<'a>) -> SiblingSet<'a> {
        let staying = |sibling: &Sibling<'a>| match other.find(sibling.dot) {
            Some(theirs) if sibling.is_swept => Some(*theirs),
            Some(_) => Some(*sibling),
            None => Some(*sibling).filter(|sibling| !other.seen.covers(sibling.dot)),
        };
        let mut siblings: Vec<Sibling<'a>> = self.siblings.iter().filter_map(staying).collect();
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

    /// Frees the values that have expired at `now`, and keeps that they were there: what was seen, which value replaces
    /// which and when each expires stays the same, so digests do. How many bytes that frees; `None` if there is nothing to
    /// free.
    pub(crate) fn sweep(&mut self, now: UnixMillis) -> Option<usize> {
        let mut freed = None;
        let is_due = |sibling: &&mut Sibling<'a>| !sibling.is_swept && !sibling.is_live(now);
        for sibling in self.siblings.iter_mut().filter(is_due) {
            freed = Some(freed.unwrap_or(0) + sibling.value.len());
            (sibling.value, sibling.is_swept) = (&[], true);
        }
        freed
    }

    /// When the first of the values that were not swept expires, if any ever does.
    pub(crate) fn due_at(&self) -> Option<UnixMillis> {
        self.siblings.iter().filter(|sibling| !sibling.is_swept).filter_map(|sibling| sibling.expiry).min()
    }

    /// How many of the values were swept.
    pub(crate) fn swept(&self) -> usize {
        self.siblings.iter().filter(|sibling| sibling.is_swept).count()
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
