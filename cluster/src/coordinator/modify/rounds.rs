//! The rounds of a read-modify-write: what is asked of the replicas, and what follows from their answers.

use gyre_storage::siblings::Dot;
use gyre_storage::{Record, Version};

use super::{Change, ModifyOp, Phase};
use crate::coordinator::add::{AddEnd, AddRound, Told, value};
use crate::coordinator::context::{Context, Step};
use crate::coordinator::read::ReadRound;
use crate::coordinator::shell::Shell;
use crate::coordinator::write::WriteRound;
use crate::level::Verdict;
use crate::modify::{self, ModifyError, ModifyReply};
use crate::outcome::Outcome;

impl ModifyOp {
    /// An increment's short way, or its long way where the short one could not be right: what this node holds may be
    /// out of date, so a refusal or a new register must come from a read at the read level.
    pub(super) fn add<S: Shell>(&mut self, cx: &mut Context<'_, S>, record: &Record) -> Step {
        let Change::Add(delta) = self.change else { return self.read(cx) };
        let (read, write) = (self.levels.read, self.levels.write);
        let needed = (read.needed(self.replicas.len()), write.needed(self.replicas.len()));
        self.round += 1;
        let (round, key) = (self.round, self.key.key());
        match AddRound::start(cx, &self.replicas, self.forwarder, needed, round, key, record, delta) {
            Some(add) => {
                self.storing = Some(self.round);
                self.phase = Phase::Adding(add);
                self.advance_add(cx)
            }
            None => self.read(cx),
        }
    }

    pub(super) fn advance_add<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        let Phase::Adding(add) = &self.phase else { return Step::Pending };
        match add.end() {
            AddEnd::Pending => Step::Pending,
            AddEnd::Lost => add.give_up(),
            AddEnd::Agreed => {
                cx.env.statistics.counter_rounds_single += 1;
                self.is_told = add.is_entrusted();
                Step::Finish(Outcome::Modified(ModifyReply::Integer(add.reply())))
            }
            AddEnd::Disagreed => {
                cx.env.statistics.counter_rounds_resolved += 1;
                self.round += 1;
                let needed = self.levels.read.needed(self.replicas.len());
                let read =
                    ReadRound::resolve(cx, &add.known(self.replicas), needed, self.round, self.key.key());
                let (base, reply, write) = (add.base(), add.reply(), add.as_write(self.replicas));
                let (read, told) = (Box::new(read), add.told());
                self.phase = Phase::Resolving { read, base, reply, write, told };
                self.advance_read(cx)
            }
        }
    }

    pub(super) fn read<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        self.round += 1;
        let needed = self.levels.read.needed(self.replicas.len());
        let read = ReadRound::start(cx, self.replicas, needed, self.round, self.key.key());
        self.phase = Phase::Reading(Box::new(read));
        self.advance_read(cx)
    }

    pub(super) fn advance_read<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        let (Phase::Reading(read) | Phase::Resolving { read, .. }) = &mut self.phase else {
            return Step::Pending;
        };
        match read.advance(cx, self.key.key()) {
            None => Step::Pending,
            Some(Err(failure)) => Step::fail(failure),
            Some(Ok(record)) => match self.phase {
                Phase::Resolving { base, reply, .. } if record.base() == base => {
                    let value = value(&record, cx.now.wall).unwrap_or(reply);
                    Step::Finish(Outcome::Modified(ModifyReply::Integer(value)))
                }
                // The key was set meanwhile: the increment is void.
                Phase::Resolving { reply, write, told, .. } => {
                    self.phase = Phase::Doubting { record, reply, write, told };
                    self.advance_doubt(cx)
                }
                _ => self.write(cx, &record),
            },
        }
    }

    /// Makes a void increment once more, unless its forwarder has told its client: that would count twice.
    pub(super) fn advance_doubt<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        let Phase::Doubting { record, reply, write, told } = &self.phase else { return Step::Pending };
        match told {
            Told::Open { is_lost: false, .. } => Step::Pending,
            Told::Open { is_lost: true, .. } => write.give_up(),
            Told::Yes => {
                self.is_told = true;
                Step::Finish(Outcome::Modified(ModifyReply::Integer(*reply)))
            }
            // `record` has every write that was acknowledged before this operation began, so what is added to it counts,
            // and what sets the key later comes after.
            Told::No => {
                let record = record.clone();
                self.write(cx, &record)
            }
        }
    }

    fn write<S: Shell>(&mut self, cx: &mut Context<'_, S>, record: &Record) -> Step {
        // Stand-ins need not have been asked, and this node may be one.
        let record = &record.merge(&self.own);
        let (change, version) = match self.apply(cx, record) {
            Err(refusal) => return Step::Finish(Outcome::Refused(refusal)),
            Ok(change) => change,
        };
        if let Some(crowd) = change.crowd {
            cx.env.statistics.count_crowd(crowd);
            cx.shell.crowded(self.key.key(), crowd);
        }
        let Some(row) = change.row else { return Step::Finish(Outcome::Modified(change.reply)) };
        let needed = self.levels.write.needed(self.replicas.len());
        self.round += 1;
        let row = row.row(self.key.key(), version);
        let write = WriteRound::start(cx, self.replicas, needed, self.round, &row);
        // The next change of this node's own cell starts from it, so it must be the newest.
        let write = if self.change.writes_own_cell() {
            self.storing = Some(self.round);
            write.requiring(cx.env.config.node)
        } else {
            write
        };
        self.phase = Phase::Writing { write, reply: change.reply };
        self.advance_write()
    }

    /// What the change makes of `record`, and the version of its row.
    fn apply<S: Shell>(
        &self,
        cx: &mut Context<'_, S>,
        record: &Record,
    ) -> Result<(modify::Change, Version), ModifyError> {
        let (modify, actor) = (self.change.modify(), cx.env.config.actor);
        if let Change::Siblings(_) = self.change {
            // What a node whose clock is wrong has stamped is refused from its clients as it is from itself.
            let context = modify::seen_in_context(&modify, &Record::ABSENT)?.hlc;
            if context > cx.env.clock.now() && cx.env.clock.observe(context, cx.now.wall).is_err() {
                return Err(ModifyError::ContextAhead);
            }
            let seen = modify::seen_in_context(&modify, record)?;
            let version = cx.env.stamp_after(cx.now, seen);
            let dot = Dot { event: version.hlc.0, actor };
            return Ok((modify::apply_in_context(&modify, record, cx.now.wall, dot)?, version));
        }
        let change = modify::apply(&modify, record, cx.now.wall, actor)?;
        Ok((change, cx.env.stamp_after(cx.now, record.newest_version())))
    }

    pub(super) fn advance_write(&mut self) -> Step {
        let Phase::Writing { write, reply } = &self.phase else { return Step::Pending };
        match write.verdict() {
            Verdict::Pending => Step::Pending,
            Verdict::Lost => write.give_up(),
            Verdict::Met => Step::Finish(Outcome::Modified(reply.clone())),
        }
    }
}
