//! One reply per request, in order, though requests finish in any order.
//!
//! A connection may have many commands under way at once, as long as none could observe that: commands on the same
//! key wait for each other unless their order cannot matter ([`Access::allows_after`]), and commands on several keys
//! or on none run alone. So a pipeline gets the parallelism of the cluster and the semantics of a single server.

use std::collections::VecDeque;

use gyre_cluster::outcome::Outcome;
use gyre_protocol::Resp;

use crate::metrics::CommandIndex;
use crate::session::render::{Render, render};

/// How many commands of one connection may be under way at once.
pub const IN_FLIGHT_MAX: usize = 256;

/// What a command does to the one key it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes it without reading: ordered by its version, not by its arrival.
    Blind,
    /// Adds to it, serialised first come, first served by the key's first live replica.
    Add,
    /// Reads and writes it in any other way. Its message may be long and overtaken, so it runs alone on its key.
    Modify,
    /// Several keys, no key, or all of them: runs alone.
    Barrier,
}

impl Access {
    /// Whether a command of this access may start while `earlier`, on the same key, is under way.
    fn allows_after(self, earlier: Access) -> bool {
        self == earlier && matches!(self, Access::Read | Access::Blind | Access::Add)
    }
}

/// A command under way or answered out of turn.
struct Slot {
    key_hash: u64,
    started_us: u64,
    command: CommandIndex,
    access: Access,
    resp: Resp,
    render: Render,
    silent: bool,
    reply: Option<Vec<u8>>,
}

/// What is needed to answer a command when its outcome arrives.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// [`gyre_storage::KeyRef::hash64`] of its key; 0 for barriers.
    pub key_hash: u64,
    /// What it does to that key.
    pub access: Access,
    /// The protocol of its reply.
    pub resp: Resp,
    /// The shape of its reply.
    pub render: Render,
    /// The command, for the metrics.
    pub command: CommandIndex,
    /// When it began, in monotonic microseconds.
    pub started_us: u64,
    /// `CLIENT REPLY OFF` or `SKIP`: its reply is not sent.
    pub silent: bool,
}

/// The commands of one connection that are not answered yet, and the bytes of those that are.
#[derive(Default)]
pub struct Pipeline {
    /// Replies in order, not yet sent.
    pub out: Vec<u8>,
    slots: VecDeque<Slot>,
    /// The sequence number of the first slot.
    head: u32,
    waiting: usize,
}

impl Pipeline {
    /// Whether a command of this access on this key may begin now.
    pub fn may_begin(&self, key_hash: u64, access: Access) -> bool {
        if self.waiting == 0 {
            return true;
        }
        if access == Access::Barrier || self.slots.len() >= IN_FLIGHT_MAX {
            return false;
        }
        self.slots.iter().filter(|slot| slot.reply.is_none()).all(|slot| {
            slot.access != Access::Barrier && (slot.key_hash != key_hash || access.allows_after(slot.access))
        })
    }

    /// Takes a command in; its outcome is handed to [`Pipeline::complete`] under the returned sequence number.
    pub fn begin(&mut self, pending: Pending) -> u32 {
        let sequence = self.head.wrapping_add(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.slots.push_back(Slot {
            key_hash: pending.key_hash,
            started_us: pending.started_us,
            command: pending.command,
            access: pending.access,
            resp: pending.resp,
            render: pending.render,
            silent: pending.silent,
            reply: None,
        });
        self.waiting += 1;
        sequence
    }

    /// Answers command `sequence` with `outcome`. Returns the command and when it began; `None` if it is unknown.
    pub fn complete(
        &mut self,
        sequence: u32,
        outcome: &Outcome,
        now_wall_ms: u64,
    ) -> Option<(CommandIndex, u64)> {
        self.complete_with(sequence, |out, resp, kind| render(outcome, kind, resp, now_wall_ms, out))
    }

    /// Answers command `sequence` by what `write` appends.
    pub fn complete_with(
        &mut self,
        sequence: u32,
        write: impl FnOnce(&mut Vec<u8>, Resp, Render),
    ) -> Option<(CommandIndex, u64)> {
        let index = sequence.wrapping_sub(self.head) as usize;
        let slot = self.slots.get_mut(index)?;
        if slot.reply.is_some() {
            return None;
        }
        let done = (slot.command, slot.started_us);
        self.waiting -= 1;
        if index == 0 {
            if !slot.silent {
                write(&mut self.out, slot.resp, slot.render);
            }
            self.pop_head();
            self.advance();
        } else {
            let mut reply = Vec::new();
            if !slot.silent {
                write(&mut reply, slot.resp, slot.render);
            }
            slot.reply = Some(reply);
        }
        Some(done)
    }

    /// Appends an immediate reply behind all earlier ones.
    pub fn immediate(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.slots.is_empty() {
            write(&mut self.out);
            return;
        }
        let mut reply = Vec::new();
        write(&mut reply);
        self.slots.push_back(Slot {
            key_hash: 0,
            started_us: 0,
            command: CommandIndex::default(),
            access: Access::Read,
            resp: Resp::Two,
            render: Render::Ok,
            silent: false,
            reply: Some(reply),
        });
    }

    /// How many commands are under way.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn pop_head(&mut self) {
        self.slots.pop_front();
        self.head = self.head.wrapping_add(1);
    }

    /// Moves replies that were waiting for their turn.
    fn advance(&mut self) {
        while let Some(reply) = self.slots.front().and_then(|slot| slot.reply.as_ref()) {
            self.out.extend_from_slice(reply);
            self.pop_head();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(key_hash: u64, access: Access) -> Pending {
        Pending {
            key_hash,
            access,
            resp: Resp::Two,
            render: Render::Ok,
            command: CommandIndex::default(),
            started_us: 0,
            silent: false,
        }
    }

    fn answer(pipeline: &mut Pipeline, sequence: u32, text: &str) {
        pipeline.complete_with(sequence, |out, _, _| out.extend_from_slice(text.as_bytes())).unwrap();
    }

    #[test]
    fn replies_leave_in_request_order() {
        let mut pipeline = Pipeline::default();
        let first = pipeline.begin(pending(1, Access::Read));
        let second = pipeline.begin(pending(2, Access::Read));
        pipeline.immediate(|out| out.push(b'c'));
        let fourth = pipeline.begin(pending(3, Access::Read));
        answer(&mut pipeline, fourth, "d");
        answer(&mut pipeline, second, "b");
        assert_eq!(pipeline.out, b"");
        answer(&mut pipeline, first, "a");
        assert_eq!(pipeline.out, b"abcd");
        assert_eq!(pipeline.waiting(), 0);
    }

    #[test]
    fn a_read_waits_for_a_write_of_its_key_only() {
        let mut pipeline = Pipeline::default();
        let write = pipeline.begin(pending(1, Access::Blind));
        assert!(pipeline.may_begin(2, Access::Read));
        assert!(pipeline.may_begin(1, Access::Blind));
        for access in [Access::Read, Access::Add, Access::Modify, Access::Barrier] {
            assert!(!pipeline.may_begin(1, access), "{access:?}");
        }
        answer(&mut pipeline, write, "");
        assert!(pipeline.may_begin(1, Access::Read));
    }

    #[test]
    fn additions_queue_up_and_other_modifications_wait() {
        let mut pipeline = Pipeline::default();
        let add = pipeline.begin(pending(1, Access::Add));
        assert!(pipeline.may_begin(1, Access::Add));
        assert!(!pipeline.may_begin(1, Access::Modify));
        answer(&mut pipeline, add, "");
        pipeline.begin(pending(1, Access::Modify));
        assert!(!pipeline.may_begin(1, Access::Modify));
    }

    #[test]
    fn a_barrier_runs_alone() {
        let mut pipeline = Pipeline::default();
        let barrier = pipeline.begin(pending(0, Access::Barrier));
        assert!(!pipeline.may_begin(1, Access::Read));
        answer(&mut pipeline, barrier, "");
        assert!(pipeline.may_begin(1, Access::Read));
    }

    #[test]
    fn the_number_under_way_is_bounded() {
        let mut pipeline = Pipeline::default();
        for key in 0..IN_FLIGHT_MAX as u64 {
            assert!(pipeline.may_begin(key, Access::Read));
            pipeline.begin(pending(key, Access::Read));
        }
        assert!(!pipeline.may_begin(u64::MAX, Access::Read));
    }

    #[test]
    fn an_unknown_or_answered_command_is_not_answered_again() {
        let mut pipeline = Pipeline::default();
        pipeline.begin(pending(1, Access::Read));
        let second = pipeline.begin(pending(2, Access::Read));
        answer(&mut pipeline, second, "b");
        assert!(pipeline.complete_with(second, |_, _, _| ()).is_none());
        assert!(pipeline.complete_with(99, |_, _, _| ()).is_none());
    }

    #[test]
    fn a_silent_command_leaves_no_bytes() {
        let mut pipeline = Pipeline::default();
        let first = pipeline.begin(Pending { silent: true, ..pending(1, Access::Read) });
        answer(&mut pipeline, first, "a");
        assert_eq!(pipeline.out, b"");
    }
}
