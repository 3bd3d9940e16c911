//! What must hold of read-modify-writes: always that none is done twice; that they are serial only while every node
//! agrees on a key's first live replica, which in the simulation is while nothing fails.

use std::collections::BTreeMap;

use gyre_cluster::coordinator::Tag;
use gyre_storage::{Record, UnixMillis, View};

use super::journal::words;
use super::{Verdict, ensure};
use crate::history::{End, Operation};
use crate::queue::Micros;

/// A key that words are appended to.
#[derive(Default)]
pub(crate) struct LogWatch {
    /// Words whose APPEND was acknowledged, and when.
    appended: BTreeMap<u64, Micros>,
    /// How many words were asked for.
    pub(crate) asked: usize,
}

impl LogWatch {
    /// A read shows `value`: no word may stand in it twice.
    pub(crate) fn read(&self, value: &[u8], operation: &Operation) -> Verdict {
        let mut words = words(value);
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        ensure!(
            words.len() == count,
            "a word was appended twice: {}\n{operation}",
            String::from_utf8_lossy(value)
        );
        Ok(())
    }

    /// An APPEND was acknowledged while all are serial.
    pub(crate) fn appended(&mut self, operation: &Operation) {
        self.appended.insert(operation.tag.0, operation.ended_at.unwrap_or_default());
    }

    /// While all are serial, a read that overlaps with the writes shows every word acknowledged before it began.
    pub(crate) fn must_have_all(&self, record: &Record, operation: &Operation) -> Verdict {
        let levels = operation.levels;
        if levels.read == gyre_cluster::level::Consistency::One {
            return Ok(());
        }
        let there = match record.view(UnixMillis(0)) {
            Some(View::Bytes(value)) => words(value),
            _ => Vec::new(),
        };
        let begun_at = operation.begun_at.unwrap_or_default();
        for (word, _) in self.appended.iter().filter(|(_, ended_at)| **ended_at < begun_at) {
            ensure!(there.contains(word), "word {word} was acknowledged and is gone\n{operation}");
        }
        Ok(())
    }
}

/// A key that is set only if it is absent, and deleted by who has set it.
#[derive(Default)]
pub(crate) struct LockWatch {
    holder: Option<Tag>,
}

impl LockWatch {
    /// A SET NX was acknowledged while all are serial: nobody else may hold the lock.
    pub(crate) fn acquired(&mut self, operation: &Operation) -> Verdict {
        debug_assert_eq!(operation.end, End::Done, "only a SET NX that was done acquires");
        if let Some(holder) = self.holder {
            return Err(format!("the lock was given away while #{} had it\n{operation}", holder.0));
        }
        self.holder = Some(operation.tag);
        Ok(())
    }

    /// The holder is about to give the lock back.
    pub(crate) fn release(&mut self, holder: Tag) {
        if self.holder == Some(holder) {
            self.holder = None;
        }
    }
}
