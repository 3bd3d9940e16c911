//! Who exchanges with whom, and when; and how exchanges go on and end.

use std::collections::BTreeMap;
use std::time::Duration;

use gyre_storage::{Hlc, Slot};

use super::exchange::{Exchange, Next, PORTION_KEYS_MAX, PORTION_KEYS_MIN, Trouble};
use super::message::{Refusal, RepairMessage};
use super::pair::{Pair, Waiting};
use super::slots::SlotSet;
use super::turns::Turns;
use super::work::{Answer, Work};
use super::{Asker, Effect, MARKS_EVERY, Repair, SAVE_EVERY, Ticket};
use crate::node::NodeId;
use crate::random::Random;
use crate::time::MonoMicros;

/// Exchanges that a node drives at a time.
const EXCHANGES_MAX: usize = 4;
/// How long a step may take: it may have to hash many keys anew, and wait its turn at a peer that serves others.
const STEP_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a peer is told which slots are wanted of it.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// How soon to step again while something waits for tokens, and while nothing does.
const WAIT_BUSY: Duration = Duration::from_millis(20);
const WAIT_IDLE: Duration = Duration::from_millis(500);

impl Repair {
    /// Goes on as far as the time allows. `clock` is this node's hybrid clock.
    pub fn step(&mut self, now: MonoMicros, clock: Hlc, effects: &mut Vec<Effect>) {
        self.end_late(now, effects);
        self.begin_due(now, clock);
        self.ask_drivers(now, effects);
        if now >= self.marks_at && !self.is_reading_marks {
            self.is_reading_marks = true;
            self.marks_at = now + MARKS_EVERY;
            effects.push(Effect::ReadMarks);
        }
        self.begin_stray(now);
        self.go_on(now, clock, effects);
        self.save(now, effects);
    }

    /// How long to wait before the next [`step`](Repair::step), at most; sooner does no harm.
    #[must_use]
    pub fn wait(&self) -> Duration {
        if self.is_slowed { WAIT_BUSY } else { WAIT_IDLE }
    }

    /// Everything that waits for nothing but tokens goes on.
    pub(super) fn go_on(&mut self, now: MonoMicros, clock: Hlc, effects: &mut Vec<Effect>) {
        self.serve(now, clock, effects);
        self.is_slowed = self.served.is_waiting();
        let peers: Vec<NodeId> =
            self.pairs.iter().filter(|(_, pair)| pair.exchange.is_some()).map(|(&peer, _)| peer).collect();
        for peer in peers {
            self.advance(now, clock, peer, effects);
        }
        self.advance_stray(now, effects);
    }

    fn begin_due(&mut self, now: MonoMicros, clock: Hlc) {
        let mut running = self.pairs.values().filter(|pair| pair.exchange.is_some()).count();
        let is_ready =
            |pair: &Pair| pair.drives && pair.is_up && pair.exchange.is_none() && now >= pair.paused_until;
        let interval = self.config.interval;
        let mut ready: Vec<(bool, MonoMicros, NodeId)> = Vec::new();
        for (&peer, pair) in self.pairs.iter().filter(|(_, pair)| is_ready(pair)) {
            let is_due = !interval.is_zero() && now >= pair.due_at;
            if is_due || !pair.wanted.is_empty() {
                ready.push((pair.wanted.is_empty(), pair.due_at, peer));
            }
        }
        ready.sort_unstable();
        for (_, _, peer) in ready {
            if running >= EXCHANGES_MAX {
                return;
            }
            let Some(pair) = self.pairs.get_mut(&peer) else { continue };
            let mut slots = std::mem::take(&mut pair.wanted);
            if !interval.is_zero() && now >= pair.due_at {
                pair.due_at = now + interval;
                // What was compared before a restart, or on request, is not due yet.
                let half = u64::try_from(interval.as_millis() / 2).unwrap_or(u64::MAX);
                let lately = Hlc::from_millis(clock.millis().saturating_sub(half));
                let mut due = pair.shared.clone();
                due.subtract(&self.verified.since(peer, lately));
                slots.add(&due);
            }
            if !slots.is_empty() {
                let turns = Turns::new(self.config.node, peer, self.ring.members());
                let random = Random::new(self.config.node.0 ^ peer.0.rotate_left(32));
                pair.exchange = Some(Exchange::new(slots, turns, random, pair.portion_keys_max, now));
                running += 1;
            }
        }
    }

    /// Of pairs that the other drives, it is told what is wanted.
    fn ask_drivers(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        let is_due = |pair: &Pair| {
            let is_silent = pair.asked_at.is_none_or(|at| now.since(at) >= ASK_EVERY);
            !pair.drives && pair.is_up && !pair.wanted.is_empty() && is_silent
        };
        let mut messages = Vec::new();
        for (&peer, pair) in self.pairs.iter_mut().filter(|(_, pair)| is_due(pair)) {
            pair.asked_at = Some(now);
            messages.push((peer, RepairMessage::Wanted { runs: pair.wanted.runs() }));
        }
        for (peer, message) in messages {
            self.send(peer, &message, effects);
        }
    }

    fn advance(&mut self, now: MonoMicros, clock: Hlc, peer: NodeId, effects: &mut Vec<Effect>) {
        loop {
            let Some(pair) = self.pairs.get_mut(&peer) else { return };
            let Some(exchange) = &mut pair.exchange else { return };
            match exchange.next(now, clock, &mut self.pace) {
                Next::Wait => return,
                Next::Slow => return self.is_slowed = true,
                Next::Ask { here, there } => return self.ask(now, peer, here, there, effects),
                Next::Verified { runs, clock, session } => {
                    pair.failures = 0;
                    pair.verified_at = Some(now);
                    self.verified.note(peer, &runs, clock);
                    self.is_changed = true;
                    self.send(peer, &RepairMessage::Verified { session, clock, runs }, effects);
                }
                Next::Done => return self.end(now, peer, None, effects),
            }
        }
    }

    fn ask(
        &mut self,
        now: MonoMicros,
        peer: NodeId,
        here: Option<Work>,
        there: Option<Work>,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.next_id();
        if let Some(pair) = self.pairs.get_mut(&peer) {
            let until = now + STEP_TIME_MAX;
            pair.waiting = Some(Waiting { id, here: here.is_some(), there: there.is_some(), until });
        }
        if let Some(work) = here {
            effects.push(Effect::Work { ticket: Ticket(Asker::Exchange { peer, id }), work });
        }
        if let Some(work) = there {
            self.send(peer, &RepairMessage::Request { id, work }, effects);
        }
    }

    /// A peer has answered, or refused.
    pub(super) fn answered(
        &mut self,
        now: MonoMicros,
        clock: Hlc,
        from: NodeId,
        id: u64,
        answer: Result<(u64, Hlc, Answer), Refusal>,
        effects: &mut Vec<Effect>,
    ) {
        if self.stray.as_ref().is_some_and(|stray| stray.waits_for(from, id)) {
            return self.answered_stray(now, answer.ok().map(|(_, _, answer)| answer), effects);
        }
        let Some(pair) = self.pairs.get_mut(&from) else { return };
        let (Some(waiting), Some(exchange)) = (&mut pair.waiting, &mut pair.exchange) else { return };
        if waiting.id != id || !std::mem::take(&mut waiting.there) {
            return;
        }
        let result = match answer {
            Ok((session, theirs, answer)) => exchange.answered_there(session, theirs, answer),
            Err(reason) => Err(Trouble::Refused(reason)),
        };
        self.take(now, clock, from, result, effects);
    }

    pub(super) fn worked_for_exchange(
        &mut self,
        now: MonoMicros,
        clock: Hlc,
        peer: NodeId,
        id: u64,
        answer: Option<Answer>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        let (Some(waiting), Some(exchange)) = (&mut pair.waiting, &mut pair.exchange) else { return };
        if waiting.id != id || !std::mem::take(&mut waiting.here) {
            return;
        }
        let result = answer.map_or(Err(Trouble::Storage), |answer| exchange.answered_here(answer));
        self.take(now, clock, peer, result, effects);
    }

    fn take(
        &mut self,
        now: MonoMicros,
        clock: Hlc,
        peer: NodeId,
        result: Result<Option<Next>, Trouble>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(Some(Next::Ask { here, there })) => self.ask(now, peer, here, there, effects),
            Ok(_) => self.advance(now, clock, peer, effects),
            Err(trouble) => self.end(now, peer, Some(trouble), effects),
        }
    }

    /// Ends the exchange with `peer`, if there is one. What it has not compared is wanted still.
    pub(super) fn end(
        &mut self,
        now: MonoMicros,
        peer: NodeId,
        trouble: Option<Trouble>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        let Some(exchange) = pair.exchange.take() else { return };
        pair.waiting = None;
        let moved = exchange.moved;
        let mut rest = exchange.into_rest();
        rest.keep(&pair.shared);
        pair.wanted.add(&rest);
        if let Some(trouble) = trouble {
            pair.pause(now);
            pair.trouble = Some(trouble);
            if trouble == Trouble::TimedOut {
                pair.portion_keys_max = (pair.portion_keys_max / 4).max(PORTION_KEYS_MIN);
            }
            self.totals.failed += 1;
        } else {
            pair.completed += 1;
            pair.trouble = None;
            pair.portion_keys_max = (pair.portion_keys_max * 2).min(PORTION_KEYS_MAX);
            self.totals.completed += 1;
            self.save_at = now;
        }
        self.totals.add(&moved);
        effects.push(Effect::Ended { peer, moved, trouble });
    }

    fn end_late(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        let is_late = |waiting: &Waiting| (waiting.here || waiting.there) && now >= waiting.until;
        let late: Vec<NodeId> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.waiting.as_ref().is_some_and(is_late))
            .map(|(&peer, _)| peer)
            .collect();
        for peer in late {
            self.end(now, peer, Some(Trouble::TimedOut), effects);
        }
        if self.stray.as_ref().is_some_and(|stray| now >= stray.until) {
            self.end_stray(now);
        }
    }

    /// Marked slots are compared soon, unless a replica of them is down: while it is, there are marks without end, and
    /// most likely it is the one that misses something. Marks of slots that have been compared since go.
    pub(super) fn want_marked(&mut self, effects: &mut Vec<Effect>) {
        let mut wanted: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
        let mut settled: Vec<(Slot, Hlc)> = Vec::new();
        for (&slot, mark) in self.marks.iter().filter(|(slot, _)| self.own.contains(**slot)) {
            let others = self.ring.replicas(slot).iter().filter(|&&other| other != self.config.node);
            let open: Vec<NodeId> =
                others.copied().filter(|&other| self.verified.with(slot, other) <= mark.seen).collect();
            if open.is_empty() {
                settled.push((slot, mark.clock));
                continue;
            }
            if !self.ring.replicas(slot).iter().all(|&replica| self.is_up(replica)) {
                continue;
            }
            for peer in open {
                let is_under_way = self.pairs.get(&peer).and_then(|pair| pair.exchange.as_ref());
                let is_under_way = is_under_way
                    .is_some_and(|exchange| exchange.started > mark.seen_at && exchange.covers(slot));
                if !is_under_way {
                    wanted.entry(peer).or_default().insert(slot);
                }
            }
        }
        for (peer, slots) in wanted {
            if let Some(pair) = self.pairs.get_mut(&peer) {
                pair.want(&slots);
            }
        }
        if !settled.is_empty() {
            self.unmark(&settled);
            effects.push(Effect::ClearMarks(settled));
        }
    }

    pub(super) fn unmark(&mut self, marks: &[(Slot, Hlc)]) {
        for (slot, _) in marks {
            self.marks.remove(slot);
        }
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        node == self.config.node || self.up.contains(&node)
    }

    fn save(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        if !self.is_changed || self.saving.is_some() || now < self.save_at {
            return;
        }
        self.is_changed = false;
        self.save_at = now + SAVE_EVERY;
        effects.push(Effect::Save(self.verified.encode()));
        self.saving = Some(self.verified.clone());
    }
}
