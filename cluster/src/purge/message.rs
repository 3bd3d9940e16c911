//! What replicas say to each other about purging.
//!
//! ```text
//! number u64 | part u16 | is last u8 | count u16 × { first slot, last slot: u16 | verified, hidden, settled: u64 }
//! ```
//! Integers are little-endian. A statement is all parts of one number, in order; slots ascend.

use gyre_storage::{Hlc, SLOTS, Slot};

use crate::wire::{Malformed, Reader, put_count};

/// Reports in one message: less than 32 KiB.
const REPORTS_MAX: usize = 1_024;

/// What a replica has reached in a slot. Each of it stays true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotReport {
    /// Up to when it has compared the slot with every other replica.
    pub verified: Hlc,
    /// Up to when it hides what is dead.
    pub hidden: Hlc,
    /// The horizon of which it has shown, by another comparison, that nobody counts on what is dead at it.
    pub settled: Hlc,
}

impl SlotReport {
    /// The lesser of both, part by part.
    #[must_use]
    pub fn least(self, other: SlotReport) -> SlotReport {
        SlotReport {
            verified: self.verified.min(other.verified),
            hidden: self.hidden.min(other.hidden),
            settled: self.settled.min(other.settled),
        }
    }
}

/// What a replica has reached in neighbouring slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The first slot.
    pub first: Slot,
    /// The last slot.
    pub last: Slot,
    /// What it has reached in each.
    pub reached: SlotReport,
}

/// A part of what a replica says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeMessage {
    /// The number of the statement.
    pub number: u64,
    /// Which part of it this is.
    pub part: u16,
    /// Whether it is the last one.
    pub is_last: bool,
    /// By ascending slots.
    pub reports: Vec<Report>,
}

impl PurgeMessage {
    /// The messages that say `reports`.
    pub(super) fn cut(number: u64, reports: &[Report]) -> impl Iterator<Item = PurgeMessage> + '_ {
        let parts = reports.len().div_ceil(REPORTS_MAX);
        reports.chunks(REPORTS_MAX).enumerate().map(move |(part, reports)| PurgeMessage {
            number,
            // At most as many as there are slots.
            part: u16::try_from(part).unwrap_or(u16::MAX),
            is_last: part + 1 == parts,
            reports: reports.to_vec(),
        })
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.number.to_le_bytes().to_vec();
        out.extend_from_slice(&self.part.to_le_bytes());
        out.push(u8::from(self.is_last));
        put_count(&mut out, self.reports.len());
        for Report { first, last, reached } in &self.reports {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
            for clock in [reached.verified, reached.hidden, reached.settled] {
                out.extend_from_slice(&clock.0.to_le_bytes());
            }
        }
        out
    }

    /// Reads a message, all of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<PurgeMessage, Malformed> {
        let mut reader = Reader::new(bytes);
        let (number, part, is_last) = (reader.u64()?, reader.u16()?, reader.bool()?);
        let reports = reader.list(REPORTS_MAX, |reader| {
            let (first, last) = (reader.u16()?, reader.u16()?);
            let [verified, hidden, settled] = [reader.u64()?, reader.u64()?, reader.u64()?].map(Hlc);
            Ok(Report { first, last, reached: SlotReport { verified, hidden, settled } })
        })?;
        reader.end()?;
        let is_sound = reports.iter().all(|report| report.first <= report.last && report.last < SLOTS)
            && reports.is_sorted_by(|a, b| a.last < b.first);
        if is_sound { Ok(PurgeMessage { number, part, is_last, reports }) } else { Err(Malformed) }
    }
}
