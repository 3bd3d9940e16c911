//! The messages of an exchange and their bytes.
//!
//! ```text
//! request   1 | id varint | work
//!   work      1 sums     count u16 × { range | parts u8 }
//!             2 keys     count u16 × range
//!             3 fetch    count u16 × { range | count u16 × hash u64 }
//!             4 merge    count u16 × entry
//!             5 mark     count u16 × { slot u16 | clock u64 }
//! answer    2 | id varint | session u64 | clock u64 | answer
//!   answer    1 sums     count u16 × { keys varint | sum u64, if there are keys }
//!             2 keys     place | count u16 × { count u16 × { hash u64 | digest u64 | version } }
//!             3 records  place | count u16 × entry
//!             4 merged   count u16 × u16
//!             5 marked
//! refused   3 | id varint | reason u8
//! verified  4 | session u64 | clock u64 | count u16 × { first slot u16 | last slot u16 }
//! wanted    5 | count u16 × { first slot u16 | last slot u16 }
//! compare   6 | count u16 × { first slot u16 | last slot u16 }
//! ```
//! A range is the varint of the gap from the end of the range before it in the message (modulo 2^32, the first from 0)
//! and the varint of its length; a place is 0, or 1 | index u16 | prefix varint; an entry is its database, and length
//! varint and bytes of key and record. Varints are in LEB128, fixed integers little-endian.

use gyre_storage::tree::{PrefixRange, RangeSum};
use gyre_storage::{Hlc, PREFIX_END, Record, Slot, Version};

use super::slots::SlotRun;
use super::work::{
    Answer, Entry, KEYS_BELIEVED_MAX, KeyEntry, LISTS_MAX, MARKS_MAX, PARTS_MAX, Place, RECORDS_MAX,
    SPLITS_MAX, Split, Want, Work,
};
use crate::wire::{Malformed, Reader, put_count, put_varint};

/// Runs of slots in one message: no two neighbours of the 16,384 stand alone.
const RUNS_MAX: usize = 8_192;

/// Why a peer does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// By its ring it, or the asking node, is no replica of a slot concerned.
    #[error("by its ring one of the two is no replica")]
    NotReplica,
    /// It has too much to do.
    #[error("it has too much to do")]
    Overloaded,
    /// Its store failed.
    #[error("its store failed")]
    Storage,
}

/// A message between two nodes that exchange what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairMessage {
    /// Do this step. Answered by [`RepairMessage::Answer`] or [`RepairMessage::Refused`].
    Request {
        /// Names the answer; chosen by the asking node.
        id: u64,
        /// The step.
        work: Work,
    },
    /// The step is done.
    Answer {
        /// The request answered.
        id: u64,
        /// Names the answering process: another after each restart, before which it may have lost rows.
        session: u64,
        /// Its hybrid clock when it began the step.
        clock: Hlc,
        /// What came of it.
        answer: Answer,
    },
    /// The step was not done.
    Refused {
        /// The request answered.
        id: u64,
        /// Why.
        reason: Refusal,
    },
    /// An exchange over these slots has ended well: what either side held at `clock`, by the clocks of both, both hold.
    Verified {
        /// The session of the receiver that took part.
        session: u64,
        /// When it began.
        clock: Hlc,
        /// The slots, ascending.
        runs: Vec<SlotRun>,
    },
    /// Begin an exchange with me over these slots soon, as the one of us two who does.
    Wanted {
        /// The slots, ascending.
        runs: Vec<SlotRun>,
    },
    /// An operator wants these slots compared: do so soon, with everybody who shares some with you.
    Compare {
        /// The slots, ascending.
        runs: Vec<SlotRun>,
    },
}

impl RepairMessage {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            RepairMessage::Request { id, work } => {
                out.push(1);
                put_varint(out, *id);
                put_work(out, work);
            }
            RepairMessage::Answer { id, session, clock, answer } => {
                out.push(2);
                put_varint(out, *id);
                put_u64(out, *session);
                put_u64(out, clock.0);
                put_answer(out, answer);
            }
            RepairMessage::Refused { id, reason } => {
                out.push(3);
                put_varint(out, *id);
                out.push(match reason {
                    Refusal::NotReplica => 1,
                    Refusal::Overloaded => 2,
                    Refusal::Storage => 3,
                });
            }
            RepairMessage::Verified { session, clock, runs } => {
                out.push(4);
                put_u64(out, *session);
                put_u64(out, clock.0);
                put_runs(out, runs);
            }
            RepairMessage::Wanted { runs } => {
                out.push(5);
                put_runs(out, runs);
            }
            RepairMessage::Compare { runs } => {
                out.push(6);
                put_runs(out, runs);
            }
        }
    }

    /// Reads a message, all of `bytes`. Nothing is allocated that the bytes do not pay for.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<RepairMessage, Malformed> {
        let mut reader = Reader::new(bytes);
        let message = take_message(&mut reader)?;
        reader.end()?;
        Ok(message)
    }
}

fn take_message(reader: &mut Reader<'_>) -> Result<RepairMessage, Malformed> {
    Ok(match reader.u8()? {
        1 => RepairMessage::Request { id: reader.varint()?, work: take_work(reader)? },
        2 => RepairMessage::Answer {
            id: reader.varint()?,
            session: reader.u64()?,
            clock: Hlc(reader.u64()?),
            answer: take_answer(reader)?,
        },
        3 => RepairMessage::Refused {
            id: reader.varint()?,
            reason: match reader.u8()? {
                1 => Refusal::NotReplica,
                2 => Refusal::Overloaded,
                3 => Refusal::Storage,
                _ => return Err(Malformed),
            },
        },
        4 => RepairMessage::Verified {
            session: reader.u64()?,
            clock: Hlc(reader.u64()?),
            runs: take_runs(reader)?,
        },
        5 => RepairMessage::Wanted { runs: take_runs(reader)? },
        6 => RepairMessage::Compare { runs: take_runs(reader)? },
        _ => return Err(Malformed),
    })
}

fn put_work(out: &mut Vec<u8>, work: &Work) {
    let mut ranges = Ranges::default();
    match work {
        Work::Sums(splits) => {
            out.push(1);
            put_count(out, splits.len());
            for split in splits {
                ranges.put(out, split.range);
                out.push(split.parts);
            }
        }
        Work::Keys(wanted) => {
            out.push(2);
            put_count(out, wanted.len());
            wanted.iter().for_each(|&range| ranges.put(out, range));
        }
        Work::Fetch(wants) => {
            out.push(3);
            put_count(out, wants.len());
            for want in wants {
                ranges.put(out, want.range);
                put_count(out, want.hashes.len());
                want.hashes.iter().for_each(|&hash| put_u64(out, hash));
            }
        }
        Work::Merge(entries) => {
            out.push(4);
            put_entries(out, entries);
        }
        Work::Mark(marks) => {
            out.push(5);
            put_count(out, marks.len());
            for (slot, clock) in marks {
                out.extend_from_slice(&slot.to_le_bytes());
                put_u64(out, clock.0);
            }
        }
    }
}

fn take_work(reader: &mut Reader<'_>) -> Result<Work, Malformed> {
    let mut ranges = Ranges::default();
    Ok(match reader.u8()? {
        1 => Work::Sums(reader.list(SPLITS_MAX, |reader| {
            let (range, parts) = (ranges.take(reader)?, reader.u8()?);
            if (1..=PARTS_MAX).contains(&parts) { Ok(Split { range, parts }) } else { Err(Malformed) }
        })?),
        2 => Work::Keys(reader.list(LISTS_MAX, |reader| ranges.take(reader))?),
        3 => {
            let mut left = RECORDS_MAX;
            Work::Fetch(reader.list(RECORDS_MAX, |reader| {
                let range = ranges.take(reader)?;
                let hashes = reader.list(left, Reader::u64)?;
                left -= hashes.len();
                let is_sorted = hashes.is_sorted_by(|a, b| a < b);
                if is_sorted { Ok(Want { range, hashes }) } else { Err(Malformed) }
            })?)
        }
        4 => Work::Merge(reader.list(RECORDS_MAX, take_entry)?),
        5 => Work::Mark(reader.list(MARKS_MAX, |reader| Ok((reader.u16()?, Hlc(reader.u64()?))))?),
        _ => return Err(Malformed),
    })
}

fn put_answer(out: &mut Vec<u8>, answer: &Answer) {
    match answer {
        Answer::Sums(sums) => {
            out.push(1);
            put_count(out, sums.len());
            for sum in sums {
                put_varint(out, sum.keys);
                if sum.keys > 0 {
                    put_u64(out, sum.sum);
                }
            }
        }
        Answer::Keys { lists, next } => {
            out.push(2);
            put_place(out, *next);
            put_count(out, lists.len());
            for list in lists {
                put_count(out, list.len());
                for entry in list {
                    put_u64(out, entry.hash);
                    put_u64(out, entry.digest);
                    put_u64(out, entry.newest.hlc.0);
                    put_u64(out, entry.newest.node);
                }
            }
        }
        Answer::Records { entries, next } => {
            out.push(3);
            put_place(out, *next);
            put_entries(out, entries);
        }
        Answer::Merged(surplus) => {
            out.push(4);
            put_count(out, surplus.len());
            surplus.iter().for_each(|index| out.extend_from_slice(&index.to_le_bytes()));
        }
        Answer::Marked => out.push(5),
    }
}

fn take_answer(reader: &mut Reader<'_>) -> Result<Answer, Malformed> {
    Ok(match reader.u8()? {
        1 => Answer::Sums(reader.list(SPLITS_MAX * usize::from(PARTS_MAX), |reader| {
            let keys = reader.varint()?;
            Ok(RangeSum { sum: if keys > 0 { reader.u64()? } else { 0 }, keys })
        })?),
        2 => {
            let (next, mut left) = (take_place(reader)?, KEYS_BELIEVED_MAX);
            let lists = reader.list(LISTS_MAX, |reader| {
                let list = reader.list(left, |reader| {
                    let (hash, digest) = (reader.u64()?, reader.u64()?);
                    let newest = Version { hlc: Hlc(reader.u64()?), node: reader.u64()? };
                    Ok(KeyEntry { hash, digest, newest })
                })?;
                left -= list.len();
                Ok(list)
            })?;
            Answer::Keys { lists, next }
        }
        3 => Answer::Records { next: take_place(reader)?, entries: reader.list(RECORDS_MAX, take_entry)? },
        4 => Answer::Merged(reader.list(RECORDS_MAX, Reader::u16)?),
        5 => Answer::Marked,
        _ => return Err(Malformed),
    })
}

/// Ranges of one message, each relative to the one before.
#[derive(Default)]
struct Ranges {
    end: u64,
}

impl Ranges {
    fn put(&mut self, out: &mut Vec<u8>, range: PrefixRange) {
        put_varint(out, range.from.wrapping_sub(self.end) % PREFIX_END);
        put_varint(out, range.end - range.from);
        self.end = range.end;
    }

    fn take(&mut self, reader: &mut Reader<'_>) -> Result<PrefixRange, Malformed> {
        let (gap, length) = (reader.varint()?, reader.varint()?);
        if gap >= PREFIX_END || length == 0 || length > PREFIX_END {
            return Err(Malformed);
        }
        let from = (self.end + gap) % PREFIX_END;
        self.end = from + length;
        if self.end > PREFIX_END { Err(Malformed) } else { Ok(PrefixRange { from, end: self.end }) }
    }
}

fn put_place(out: &mut Vec<u8>, place: Option<Place>) {
    out.push(u8::from(place.is_some()));
    if let Some(place) = place {
        out.extend_from_slice(&place.index.to_le_bytes());
        put_varint(out, place.prefix);
    }
}

fn take_place(reader: &mut Reader<'_>) -> Result<Option<Place>, Malformed> {
    reader.option(|reader| Ok(Place { index: reader.u16()?, prefix: reader.varint()? }))
}

fn put_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    put_count(out, entries.len());
    for entry in entries {
        out.push(entry.db);
        put_bytes(out, &entry.key);
        put_bytes(out, entry.record.encoded());
    }
}

fn take_entry(reader: &mut Reader<'_>) -> Result<Entry, Malformed> {
    let (db, key) = (reader.u8()?, take_bytes(reader)?.to_vec());
    let record = Record::decode(take_bytes(reader)?).map_err(|_| Malformed)?;
    Ok(Entry { db, key, record })
}

fn put_runs(out: &mut Vec<u8>, runs: &[SlotRun]) {
    put_count(out, runs.len());
    for run in runs {
        out.extend_from_slice(&run.first.to_le_bytes());
        out.extend_from_slice(&run.last.to_le_bytes());
    }
}

fn take_runs(reader: &mut Reader<'_>) -> Result<Vec<SlotRun>, Malformed> {
    let mut least: Slot = 0;
    reader.list(RUNS_MAX, |reader| {
        let run = SlotRun { first: reader.u16()?, last: reader.u16()? };
        if run.first < least || run.last < run.first || run.last >= gyre_storage::SLOTS {
            return Err(Malformed);
        }
        least = run.last + 1;
        Ok(run)
    })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(reader.varint()?).map_err(|_| Malformed)?;
    reader.bytes(length)
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
