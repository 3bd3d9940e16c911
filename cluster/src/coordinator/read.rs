//! Reads: one full record, digests from enough others, and repair before the answer when they disagree.

mod ask;
mod repair;

use gyre_storage::{KeyRef, Record};

pub(crate) use self::repair::apply_rows;
use super::context::{Context, Event, Step};
use super::key::KeyBuf;
use super::replicas::{REPLICAS_MAX, Replicas};
use super::shell::Shell;
use crate::level::Quorum;
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};
use crate::time::MonoMicros;

/// What is known of one replica.
#[derive(Clone, Debug, Default)]
enum Answer {
    /// Not asked.
    #[default]
    Idle,
    /// Asked for its digest.
    DigestAsked,
    /// Asked for its record.
    RecordAsked,
    /// Holds a record of this digest.
    Digest(u64),
    /// Holds this record.
    Record(Record),
    /// Down, or refused.
    Failed,
}

impl Answer {
    fn is_pending(&self) -> bool {
        matches!(self, Answer::DigestAsked | Answer::RecordAsked)
    }

    fn is_there(&self) -> bool {
        matches!(self, Answer::Digest(_) | Answer::Record(_))
    }

    fn record(&self) -> Option<&Record> {
        if let Answer::Record(record) = self { Some(record) } else { None }
    }
}

/// How far a read has come.
#[derive(Debug)]
enum Phase {
    /// Waiting until enough replicas have answered with anything.
    Gather,
    /// They disagree: waiting for the records of enough of them.
    Resolve,
    /// Waiting until enough of them hold the merged record.
    Repair { merged: Record, holders: Quorum },
}

/// A read of one key at one level. Ends with a record that `needed` replicas are known to hold, or something newer:
/// any later read at a level that overlaps with them sees it, too, so what such reads see never goes back.
#[derive(Debug)]
pub(crate) struct ReadRound {
    replicas: Replicas,
    answers: [Answer; REPLICAS_MAX],
    phase: Phase,
    needed: usize,
    round: u8,
    started: MonoMicros,
    /// Which replicas were asked after the start, because others were slow or failed.
    asked_late: [bool; REPLICAS_MAX],
}

impl ReadRound {
    /// Asks as many replicas as are needed: this node for the record if it is a replica, else the first live one;
    /// the next ones for digests. Stand-ins, who may know nothing of the key, only if there are too few replicas.
    pub(crate) fn start<S: Shell>(
        cx: &mut Context<'_, S>,
        replicas: Replicas,
        needed: usize,
        round: u8,
        key: KeyRef<'_>,
    ) -> ReadRound {
        let mut read = ReadRound::new(cx, replicas, needed, round);
        // Peers first: their answers take longest.
        let here = replicas.index_of(cx.env.config.node).filter(|&index| !replicas.is_stand_in(index));
        if let Some(index) = here {
            read.set(index, Answer::RecordAsked);
        }
        let after_here = here.map_or(0, |index| index + 1);
        let order = (0..replicas.len()).map(|step| (after_here + step) % replicas.len());
        read.ask_enough(cx, key, order.clone().filter(|&index| !replicas.is_stand_in(index)));
        if replicas.has_stand_ins() {
            read.ask_enough(cx, key, order.filter(|&index| replicas.is_stand_in(index)));
        }
        if let Some(index) = here
            && let Some(record) = cx.read_here(round, key)
        {
            read.set(index, Answer::Record(record));
        }
        read.set_alarm(cx);
        read
    }

    /// A read that this node alone decides, once it has its record from the disk.
    pub(crate) fn waiting_here<S: Shell>(
        cx: &mut Context<'_, S>,
        replicas: Replicas,
        round: u8,
    ) -> ReadRound {
        let mut read = ReadRound::new(cx, replicas, 1, round);
        if let Some(index) = replicas.index_of(cx.env.config.node) {
            read.set(index, Answer::RecordAsked);
        }
        read.set_alarm(cx);
        read
    }

    /// Continues where the digests of a write's acknowledgements disagreed: `known` says which replicas hold `record`
    /// (the others that were heard of are asked for theirs).
    pub(crate) fn resolve<S: Shell>(
        cx: &mut Context<'_, S>,
        known: &Known<'_>,
        needed: usize,
        round: u8,
        key: KeyRef<'_>,
    ) -> ReadRound {
        let mut read = ReadRound::new(cx, known.replicas, needed, round);
        read.phase = Phase::Resolve;
        for (index, node) in known.replicas.iter() {
            if known.holders.has_acked(index) {
                read.set(index, Answer::Record(known.record.clone()));
            } else if known.heard.has_acked(index) {
                read.ask_record(cx, key, index, node);
            }
        }
        read.set_alarm(cx);
        read
    }

    /// If a slow replica could be helped out by one that was not asked, sees to it that time is taken.
    fn set_alarm<S: Shell>(&self, cx: &mut Context<'_, S>) {
        if self.count(Answer::is_pending) > 0 && self.replicas.len() > self.needed {
            let at = cx.now.mono + cx.env.hurry_delay();
            cx.env.timers.hurry(at, cx.op);
        }
    }

    fn new<S: Shell>(cx: &Context<'_, S>, replicas: Replicas, needed: usize, round: u8) -> ReadRound {
        let answers = Default::default();
        let (started, asked_late) = (cx.now.mono, [false; REPLICAS_MAX]);
        ReadRound { replicas, answers, phase: Phase::Gather, needed, round, started, asked_late }
    }

    /// Takes in an answer of `round`.
    pub(crate) fn on_event<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        node: NodeId,
        round: u8,
        event: Event,
    ) {
        let Some(index) = self.replicas.index_of(node) else { return };
        if round != self.round && !matches!(event, Event::Lost) {
            return;
        }
        let in_repair = matches!(self.phase, Phase::Repair { .. });
        let asked = self.answers.get(index).cloned().unwrap_or_default();
        match event {
            Event::Found(record) if asked.is_pending() && !in_repair => {
                self.note_latency(cx, index, node);
                self.set(index, Answer::Record(record));
            }
            Event::Digested(digest) if matches!(asked, Answer::DigestAsked) && !in_repair => {
                self.note_latency(cx, index, node);
                self.set(index, Answer::Digest(digest));
            }
            Event::Applied { .. } => {
                if let Phase::Repair { holders, .. } = &mut self.phase {
                    holders.ack(index);
                }
            }
            Event::Refused(_) | Event::Lost => self.fail(index),
            _ => {}
        }
    }

    /// A replica will not answer. One that has answered counts unless it is still to be repaired: what it held it
    /// holds, alive or not.
    fn fail(&mut self, index: usize) {
        if let Phase::Repair { holders, .. } = &mut self.phase {
            holders.fail(index);
        }
        if self.answers.get(index).is_some_and(|answer| !answer.is_there()) {
            self.set(index, Answer::Failed);
        }
    }

    /// Goes on as far as the answers allow. `Some`: the read has ended.
    pub(crate) fn advance<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        key: KeyRef<'_>,
    ) -> Option<Result<Record, Failure>> {
        if matches!(self.phase, Phase::Gather) {
            if let Some(record) = self.agreed() {
                return Some(Ok(record.clone()));
            }
            if !self.has_enough(cx, key, Answer::is_there)? {
                return Some(Err(self.timeout()));
            }
            if !self.begin_resolve(cx, key) {
                return Some(Err(self.timeout()));
            }
        }
        if matches!(self.phase, Phase::Resolve) {
            if !self.has_enough(cx, key, |answer| answer.record().is_some())? {
                return Some(Err(self.timeout()));
            }
            self.begin_repair(cx, key);
        }
        self.advance_repair(cx, key)
    }

    /// Whether enough answers satisfy `there`. `None`: not yet, but they are on their way, those of replicas asked just
    /// now instead of failed ones included. `Some(false)`: they can no longer come.
    fn has_enough<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        key: KeyRef<'_>,
        there: impl Fn(&Answer) -> bool,
    ) -> Option<bool> {
        if self.count(&there) >= self.needed {
            return Some(true);
        }
        loop {
            let expected = self.count(|answer| there(answer) || answer.is_pending());
            if expected >= self.needed {
                return None;
            }
            if !self.ask_another(cx, key, true) {
                return Some(false);
            }
        }
    }

    /// A record that as many replicas as needed hold.
    fn agreed(&self) -> Option<&Record> {
        self.answers.iter().filter_map(Answer::record).find(|record| {
            let digest = record.digest();
            let holds = |answer: &Answer| match answer {
                Answer::Digest(other) => *other == digest,
                Answer::Record(other) => other.digest() == digest,
                _ => false,
            };
            self.count(holds) >= self.needed
        })
    }

    /// Fetches the records of the replicas whose digests differ. `false` if there is none to be had.
    fn begin_resolve<S: Shell>(&mut self, cx: &mut Context<'_, S>, key: KeyRef<'_>) -> bool {
        let first = self.answers.iter().find_map(Answer::record).cloned();
        if first.is_some() {
            cx.env.statistics.digest_mismatches += 1;
        }
        let known = first.as_ref().map(Record::digest);
        self.phase = Phase::Resolve;
        for (index, node) in self.replicas.iter() {
            match (self.answers.get(index), &first) {
                (Some(Answer::Digest(digest)), Some(record)) if Some(*digest) == known => {
                    self.set(index, Answer::Record(record.clone()));
                }
                (Some(Answer::Digest(_)), _) => self.ask_record(cx, key, index, node),
                _ => {}
            }
        }
        self.count(|answer| answer.record().is_some() || answer.is_pending()) > 0
    }

    /// The first replicas are slow: asks one more. `true` if one was asked.
    pub(crate) fn hurry<S: Shell>(&mut self, cx: &mut Context<'_, S>, key: KeyRef<'_>) -> bool {
        // What a stand-in alone holds must not decide while a replica is only slow.
        let may_stand_in = self.needed > 1;
        let is_slow = match self.phase {
            Phase::Gather => self.count(Answer::is_there) < self.needed || self.agreed().is_none(),
            Phase::Resolve => true,
            Phase::Repair { .. } => false,
        };
        let asked = is_slow && self.ask_another(cx, key, may_stand_in);
        if asked {
            cx.env.statistics.speculative_retries += 1;
        }
        asked
    }

    /// The failure of a read whose level cannot be met any more, or not in time.
    pub(crate) fn timeout(&self) -> Failure {
        let acked = match &self.phase {
            Phase::Repair { holders, .. } => holders.acked(),
            _ => self.count(Answer::is_there),
        };
        Failure::Timeout { needed: self.needed, acked }
    }

    /// Takes the latency of replica `index` into the estimate, unless it was asked late: its answer took less than the
    /// round has lasted, by the very delay that is made of the estimate. Counted in, that delay would feed on itself for
    /// as long as a replica is silent.
    fn note_latency<S: Shell>(&self, cx: &mut Context<'_, S>, index: usize, node: NodeId) {
        let asked_late = self.asked_late.get(index).is_some_and(|late| *late);
        if !asked_late && !cx.is_self(node) && matches!(self.phase, Phase::Gather) {
            cx.env.latency.record(cx.now.mono.micros_since(self.started));
        }
    }

    fn set(&mut self, index: usize, answer: Answer) {
        if let Some(slot) = self.answers.get_mut(index) {
            *slot = answer;
        }
    }

    fn count(&self, matching: impl Fn(&Answer) -> bool) -> usize {
        self.answers.iter().take(self.replicas.len()).filter(|answer| matching(answer)).count()
    }
}

/// Which replicas are known to hold a record, for [`ReadRound::resolve`].
pub(crate) struct Known<'a> {
    pub(crate) replicas: Replicas,
    pub(crate) record: &'a Record,
    /// Those that hold it.
    pub(crate) holders: Quorum,
    /// Those that have answered, whatever they hold.
    pub(crate) heard: Quorum,
}

/// A client's read.
#[derive(Debug)]
pub(crate) struct ReadOp {
    pub(crate) key: KeyBuf,
    pub(crate) round: ReadRound,
}

impl ReadOp {
    pub(crate) fn boxed(key: KeyRef<'_>, round: ReadRound) -> Box<ReadOp> {
        Box::new(ReadOp { key: KeyBuf::of(key), round })
    }

    /// Goes on as far as the answers allow.
    pub(crate) fn step<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        match self.round.advance(cx, self.key.key()) {
            None => Step::Pending,
            Some(Ok(record)) => Step::Finish(Outcome::Record(record)),
            Some(Err(failure)) => Step::fail(failure),
        }
    }

    pub(crate) fn on_event<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        node: NodeId,
        round: u8,
        event: Event,
    ) -> Step {
        self.round.on_event(cx, node, round, event);
        self.step(cx)
    }

    pub(crate) fn on_hurry<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        self.round.hurry(cx, self.key.key());
        self.step(cx)
    }
}
