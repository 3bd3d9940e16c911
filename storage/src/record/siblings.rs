//! The sibling cells of a record.
//!
//! ```text
//! bytes that follow: u32 | cells: u16
//! cells × { actor u64, version (hlc, node), base (hlc, node), length u32, encoded set }      by ascending actor
//! ```
//!
//! Each actor writes what it knows of all values of the key into its own cell, on top of the register version it has
//! seen (the *base*). What a key holds is the join of the cells on the greatest base, and the register's value if that is
//! the base and no cell has seen it replaced. So SET and DEL, which give the key a newer base, replace all siblings.
//!
//! A record keeps no cell that says nothing beside newer ones: one of which a newer cell on the same base descends, or
//! one on an older base that is no newer than the newest base. That loses nothing: an actor's later rows descend from
//! its earlier ones, so whatever makes a row void makes the older rows of its cell void, too, and merging still commutes,
//! associates and is idempotent. Once one write has seen all others, its cell is the only one.
//!
//! What is void beside something *older* stays: its actor must stamp its next row after it, and so must find its version
//! in the record. (A cell on an older base then does not count; it is left by a SET and a write with a context that met
//! while the SET's clock was behind.)

use std::borrow::Cow;

use super::{MalformedRecord, Record, Register, SIBLINGS, View, put_version, u64_at, version_at};
use crate::siblings::{Dot, PLAIN, SiblingSet};
use crate::version::{Hlc, UnixMillis, Version};

/// How many sibling cells a record may have. A record keeps cells only of actors that have not seen each other's writes.
const CELLS_MAX: usize = 1_024;
/// What stands before the cells.
const BLOCK_HEAD_BYTES: usize = 6;
/// What stands before the set of each.
const CELL_HEAD_BYTES: usize = 44;

/// The newest row of one sibling cell of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiblingCell<'a> {
    /// The node incarnation that owns the cell.
    pub actor: u64,
    /// The row's version.
    pub version: Version,
    /// The register version that the set stands on.
    pub base: Version,
    /// The encoded set.
    pub set: &'a [u8],
}

/// What all sibling cells of a record say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiblingState<'a> {
    /// The version that the set stands on: that of the register, or a newer one of which a cell knows.
    pub base: Version,
    /// The values that were written with a context. [`PLAIN`] stands for what was written without.
    pub set: SiblingSet<'a>,
    /// The write without a context that the record shows, if it shows one: what [`PLAIN`] must cover to replace it.
    pub plain: Option<Dot>,
}

/// One of the values that a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSibling<'a> {
    /// The write it came by; of [`PLAIN`] if that had no context.
    pub dot: Dot,
    /// When it expires.
    pub expiry: Option<UnixMillis>,
    /// The value.
    pub value: View<'a>,
}

/// A cell that a builder has collected.
pub(super) struct StagedSiblings<'a> {
    actor: u64,
    pub(super) version: Version,
    base: Version,
    set: Cow<'a, [u8]>,
}

impl StagedSiblings<'_> {
    /// Whether `other`, of the same cell, is to be taken instead: it is newer, or it is this row from before it was swept,
    /// as of registers (see [`Register::yields_to`]). A row is swept value by value, so of two states of one that with
    /// fewer swept values is the earlier one.
    fn yields_to(&self, other: &StagedSiblings<'_>) -> bool {
        let swept = |staged: &StagedSiblings<'_>| decoded(&staged.cell()).swept();
        self.version < other.version
            || self.version == other.version && self.set != other.set && swept(self) > swept(other)
    }

    fn cell(&self) -> SiblingCell<'_> {
        SiblingCell { actor: self.actor, version: self.version, base: self.base, set: &self.set }
    }
}

impl<'a> From<SiblingCell<'a>> for StagedSiblings<'a> {
    fn from(cell: SiblingCell<'a>) -> Self {
        let SiblingCell { actor, version, base, set } = cell;
        StagedSiblings { actor, version, base, set: Cow::Borrowed(set) }
    }
}

impl SiblingState<'_> {
    /// The context of a client that has seen all this.
    #[must_use]
    pub fn seen(&self) -> crate::siblings::VersionVector {
        let mut seen = self.set.seen().clone();
        if let Some(plain) = self.plain {
            seen.see(plain);
        }
        seen
    }
}

impl Record {
    /// Whether the key was written with a context since it was last written without one.
    #[must_use]
    pub fn has_siblings(&self) -> bool {
        self.sibling_cells().next().is_some()
    }

    /// Whether the record has sibling cells, be they void.
    pub(super) fn has_sibling_cells(&self) -> bool {
        self.encoded().first().is_some_and(|flags| flags & SIBLINGS != 0)
    }

    /// The sibling cells that count, by ascending actor.
    pub fn sibling_cells(&self) -> impl Iterator<Item = SiblingCell<'_>> {
        let base = self.sibling_base();
        self.all_sibling_cells().filter(move |cell| cell.base == base)
    }

    /// The sibling cells, those on an older base included.
    pub(super) fn all_sibling_cells(&self) -> impl Iterator<Item = SiblingCell<'_>> {
        let block = self.sibling_block().unwrap_or_default();
        let mut rest = block.get(BLOCK_HEAD_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (cell, after) = take_cell(rest)?;
            rest = after;
            Some(cell)
        })
    }

    /// How many sibling cells the record keeps.
    pub(crate) fn kept_sibling_cells(&self) -> usize {
        self.all_sibling_cells().count()
    }

    /// Whether the record keeps the sibling cell of `actor`: whether that is not void beside the others.
    pub(crate) fn keeps_siblings_of(&self, actor: u64) -> bool {
        self.all_sibling_cells().any(|cell| cell.actor == actor)
    }

    /// What the sibling cells say together.
    #[must_use]
    pub fn sibling_state(&self) -> SiblingState<'_> {
        let base = self.ghost_base().unwrap_or_else(|| self.sibling_base());
        let sets = self.sibling_cells().map(|cell| decoded(&cell));
        let set = sets.reduce(|joined, set| joined.join(&set)).unwrap_or_default();
        SiblingState { base, set, plain: self.plain_dot(base) }
    }

    /// Every value that a client sees at `now`, the newest first: those written with a context, and the one written
    /// without if no context has seen it.
    #[must_use]
    pub fn siblings(&self, now: UnixMillis) -> Vec<LiveSibling<'_>> {
        let state = self.sibling_state();
        let live = state.set.siblings().iter().filter(|sibling| sibling.is_live(now));
        let mut siblings: Vec<LiveSibling<'_>> = live
            .map(|sibling| LiveSibling {
                dot: sibling.dot,
                expiry: sibling.expiry,
                value: View::Bytes(sibling.value),
            })
            .collect();
        if let Some(dot) = state.plain
            && !state.set.seen().covers(dot)
            && let Some(value) = self.plain_view(now)
        {
            let expiry = self.register().filter(|register| register.value.is_some()).and_then(|r| r.expiry);
            siblings.push(LiveSibling { dot, expiry, value });
        }
        siblings.sort_unstable_by_key(|sibling| std::cmp::Reverse(sibling.dot));
        siblings
    }

    /// The newest row that was written without a context, on `base`, unless all there is is a tombstone.
    fn plain_dot(&self, base: Version) -> Option<Dot> {
        let register = self.base();
        if register != base {
            return None;
        }
        let counters = self.counters().filter(|cell| cell.base == base).map(|cell| cell.version.hlc.0);
        let value = self.register().filter(|register| register.value.is_some()).map(|_| base.hlc.0);
        let event = counters.chain(value).max()?;
        Some(Dot { event, actor: PLAIN })
    }

    /// What siblings of a key that is dead stand on, though it is not forgotten everywhere yet: a version after whatever
    /// others may still show of it, and the same on all nodes that forget it up to the same horizon.
    fn ghost_base(&self) -> Option<Version> {
        let ghost = self.register().filter(|_| self.is_ghost())?;
        Some(Version { hlc: Hlc::from_millis(ghost.expiry?.0 + 1), node: 0 })
    }

    /// Whether nothing is left of a key that was written with a context, and everything of it is at or before `horizon`.
    pub(super) fn siblings_are_dead_at(&self, horizon: Hlc) -> bool {
        let state = self.sibling_state();
        let has_expired = |expiry: Option<UnixMillis>| expiry.is_some_and(|at| at.0 <= horizon.millis());
        let plain_is_dead = match state.plain {
            Some(dot) => {
                state.set.seen().covers(dot)
                    || self.register().is_some_and(|register| has_expired(register.expiry))
            }
            None => true,
        };
        plain_is_dead
            && self.newest_version().hlc <= horizon
            && state.set.siblings().iter().all(|sibling| has_expired(sibling.expiry))
    }

    /// The greatest version that anything of the record stands on.
    pub(super) fn sibling_base(&self) -> Version {
        self.all_sibling_cells().map(|cell| cell.base).fold(self.base(), Version::max)
    }

    /// Whether the record has `cell`, or what makes it void.
    pub(super) fn covers_siblings(&self, cell: &SiblingCell<'_>) -> bool {
        let base = self.sibling_base();
        cell.base < base
            || self.all_sibling_cells().any(|own| {
                own.actor == cell.actor && own.version >= cell.version
                    || own.base == base && cell.base == base && dominates(&own, cell)
            })
    }

    /// Checks what the accessors rely on, as far as it concerns sibling cells.
    pub(super) fn check_siblings(&self) -> Result<(), MalformedRecord> {
        let block = self.sibling_block().ok_or(MalformedRecord)?;
        let count = block.get(4..BLOCK_HEAD_BYTES).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
        let count = usize::from(count.ok_or(MalformedRecord)?);
        let mut rest = block.get(BLOCK_HEAD_BYTES..).ok_or(MalformedRecord)?;
        if count == 0 || count > CELLS_MAX {
            return Err(MalformedRecord);
        }
        let mut before = None;
        for _ in 0..count {
            let (cell, after) = take_cell(rest).ok_or(MalformedRecord)?;
            let is_in_order = before.is_none_or(|before| before < cell.actor);
            if !is_in_order || SiblingSet::decode(cell.set).is_err() {
                return Err(MalformedRecord);
            }
            before = Some(cell.actor);
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(MalformedRecord) }
    }

    /// How many bytes the block takes, its head included; `None` if its head is cut off.
    pub(super) fn sibling_bytes(&self) -> Option<usize> {
        if !self.has_sibling_cells() {
            return Some(0);
        }
        let at = self.siblings_at();
        let bytes: [u8; 4] = self.encoded().get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()?.checked_add(4)
    }

    fn sibling_block(&self) -> Option<&[u8]> {
        let (at, bytes) = (self.siblings_at(), self.sibling_bytes()?);
        self.encoded().get(at..at.checked_add(bytes)?)
    }
}

impl<'a> super::RecordBuilder<'a> {
    pub(crate) fn add_siblings(&mut self, actor: u64, version: Version, base: Version, set: Cow<'a, [u8]>) {
        let staged = StagedSiblings { actor, version, base, set };
        match self.siblings.binary_search_by_key(&actor, |cell| cell.actor) {
            Ok(at) => {
                if let Some(own) = self.siblings.get_mut(at).filter(|own| own.yields_to(&staged)) {
                    *own = staged;
                }
            }
            Err(at) => self.siblings.insert(at, staged),
        }
    }
}

/// The cells that a record keeps beside `register`.
pub(super) fn settled<'b>(
    register: Option<Register<'_>>,
    staged: &'b [StagedSiblings<'_>],
) -> Vec<SiblingCell<'b>> {
    let base =
        staged.iter().map(|cell| cell.base).fold(register.map_or(Version::ZERO, |r| r.version), Version::max);
    let cells: Vec<SiblingCell<'b>> = staged
        .iter()
        .map(StagedSiblings::cell)
        .filter(|cell| cell.base == base || cell.version > base)
        .collect();
    if cells.len() < 2 {
        return cells;
    }
    let is_void = |cell: &SiblingCell<'_>| {
        let mut others = cells.iter().filter(|other| other.actor != cell.actor && other.base == base);
        cell.base == base && others.any(|other| dominates(other, cell))
    };
    let mut settled: Vec<SiblingCell<'b>> = cells.iter().filter(|cell| !is_void(cell)).copied().collect();
    // A bound for what never happens: so many actors that have not seen each other's writes.
    settled.truncate(CELLS_MAX);
    settled
}

/// Appends the block of `cells`; nothing if there are none.
pub(super) fn put_cells(out: &mut Vec<u8>, cells: &[SiblingCell<'_>]) {
    if cells.is_empty() {
        return;
    }
    let bytes = 2 + cells.iter().map(|cell| CELL_HEAD_BYTES + cell.set.len()).sum::<usize>();
    put_length(out, bytes);
    let count = u16::try_from(cells.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for cell in cells {
        out.extend_from_slice(&cell.actor.to_le_bytes());
        put_version(out, cell.version);
        put_version(out, cell.base);
        put_length(out, cell.set.len());
        out.extend_from_slice(cell.set);
    }
}

/// Whether `cell`, on the same base, is void beside `other`. (A node that lost its disk and with it the mark of its clock
/// might repeat a version, as another actor.)
fn dominates(other: &SiblingCell<'_>, cell: &SiblingCell<'_>) -> bool {
    let is_newer = (other.version, other.actor) >= (cell.version, cell.actor);
    is_newer && decoded(other).descends(&decoded(cell))
}

/// The set of a cell. Cells are checked where they come from.
fn decoded<'a>(cell: &SiblingCell<'a>) -> SiblingSet<'a> {
    SiblingSet::decode(cell.set).unwrap_or_default()
}

fn take_cell(bytes: &[u8]) -> Option<(SiblingCell<'_>, &[u8])> {
    let actor = u64_at(bytes, 0)?;
    let (version, base) = (version_at(bytes, 8)?, version_at(bytes, 24)?);
    let length: [u8; 4] = bytes.get(40..CELL_HEAD_BYTES)?.try_into().ok()?;
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    let (set, rest) = bytes.get(CELL_HEAD_BYTES..)?.split_at_checked(length)?;
    Some((SiblingCell { actor, version, base, set }, rest))
}

/// Sets are bounded far below 4 GiB where they are written.
fn put_length(out: &mut Vec<u8>, bytes: usize) {
    out.extend_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes());
}
