//! What happens to operations in flight: answers, links, alarms, and how operations end.

use gyre_storage::{KeyRef, Record};

use super::context::{Context, Event, Step, keep_hints};
use super::forward::{Entrusted, Forwarder};
use super::operations::{Kind, Origin, Slot};
use super::replicas::Replicas;
use super::scan::ScannedPage;
use super::serve;
use super::shell::{LinkId, OpId, PeerAnswer, Shell, Ticket};
use super::statistics::Operation;
use super::timers::Alarm;
use super::{Coordinator, Start};
use crate::level::Quorums;
use crate::message::{Message, Reason, RequestId};
use crate::node::NodeId;
use crate::outcome::Outcome;
use crate::time::Now;

impl Coordinator {
    /// Takes in a message of peer `from`: an answer to a request of this worker, or a request, whose answer is to reach
    /// whoever holds the other end of `link`. Messages that are the shell's own business (Topology, Forming,
    /// Gossip, Exchange, Ping, Pong) are not looked at.
    pub fn receive<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        from: NodeId,
        link: LinkId,
        message: Message<'_>,
    ) {
        let (request, event) = match message {
            Message::Applied { request, digest } => (request, Event::Applied { digest }),
            Message::HorizonSet { request } => (request, Event::Applied { digest: None }),
            Message::Found { request, record } => (request, Event::Found(record)),
            Message::Digested { request, digest } => (request, Event::Digested(digest)),
            Message::Modified { request, result } => (request, Event::Modified(result)),
            Message::Failed { request, reason } => (request, Event::Refused(reason)),
            Message::Scanned { request, entries, next } => (request, Event::Scanned { entries, next }),
            Message::Counted { request, keys, next } => (request, Event::Counted { keys, next }),
            Message::ClockReply { request, clock } => {
                // A clock too far ahead is not followed; the link reports it.
                let _ = self.env.clock.observe(clock, now.wall);
                (request, Event::Clock)
            }
            other => return self.serve(shell, now, from, link, other),
        };
        self.deliver(shell, now, from, request, event);
    }

    /// The batch that held the row, or the horizon, of `ticket` is committed, or has failed.
    pub fn applied<S: Shell>(&mut self, shell: &mut S, now: Now, ticket: Ticket, is_stored: bool) {
        match ticket {
            Ticket::Nobody => {}
            Ticket::Peer { link, request, answer } => {
                serve::answer_applied(shell, link, request, answer, is_stored);
            }
            Ticket::Op(request) => {
                let event =
                    if is_stored { Event::Applied { digest: None } } else { Event::Refused(Reason::Storage) };
                self.deliver(shell, now, self.env.config.node, request, event);
            }
        }
    }

    /// The record that [`Shell::read`] could not give at once; `None` if the store failed.
    pub fn local_record<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        ticket: Ticket,
        record: Option<Record>,
    ) {
        match ticket {
            Ticket::Nobody => {}
            Ticket::Peer { link, request, answer } => {
                serve::answer_record(shell, link, request, answer, record);
            }
            Ticket::Op(request) => {
                let event = record.map_or(Event::Refused(Reason::Storage), Event::Found);
                self.deliver(shell, now, self.env.config.node, request, event);
            }
        }
    }

    /// The page that [`Shell::scan`] asked for: keys with their records, by ascending position, in whole groups of equal
    /// position prefix, and the prefix where the next page begins (`None` at the end of the range). `None` if the store
    /// failed.
    pub fn scanned<S: Shell>(&mut self, shell: &mut S, now: Now, ticket: Ticket, page: Option<ScannedPage>) {
        match ticket {
            Ticket::Nobody => {}
            Ticket::Peer { link, request, .. } => shell.respond(
                link,
                &match page {
                    Some((entries, next)) => Message::Scanned { request, entries, next },
                    None => Message::Failed { request, reason: Reason::Storage },
                },
            ),
            Ticket::Op(request) => {
                let event = match page {
                    Some((entries, next)) => Event::Scanned { entries, next },
                    None => Event::Refused(Reason::Storage),
                };
                self.deliver(shell, now, self.env.config.node, request, event);
            }
        }
    }

    /// The count that [`Shell::count`] asked for: live keys, and the prefix where the next page begins (`None` at the
    /// end of the range). `None` if the store failed.
    pub fn counted<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        ticket: Ticket,
        page: Option<(u64, Option<u64>)>,
    ) {
        match ticket {
            Ticket::Nobody => {}
            Ticket::Peer { link, request, .. } => shell.respond(
                link,
                &match page {
                    Some((keys, next)) => Message::Counted { request, keys, next },
                    None => Message::Failed { request, reason: Reason::Storage },
                },
            ),
            Ticket::Op(request) => {
                let event = match page {
                    Some((keys, next)) => Event::Counted { keys, next },
                    None => Event::Refused(Reason::Storage),
                };
                self.deliver(shell, now, self.env.config.node, request, event);
            }
        }
    }

    /// The lock that `op` was waiting for is its own now. If `op` has ended meanwhile the lock is given back at once.
    pub fn locked<S: Shell>(&mut self, shell: &mut S, now: Now, op: OpId, key_hash: u64) {
        let Some(slot) = self.operations.get_mut(op) else { return shell.unlock(key_hash) };
        let Kind::Modify(modify) = &mut slot.kind else { return shell.unlock(key_hash) };
        if !modify.is_waiting_for_lock() {
            return shell.unlock(key_hash);
        }
        let step = modify.on_locked(&mut Context { env: &mut self.env, shell, now, op });
        self.conclude(shell, now, op, step);
    }

    /// This worker has a link to `peer` now.
    pub fn peer_up(&mut self, peer: NodeId) {
        insert(&mut self.env.linked, peer);
        self.env.update_live();
    }

    /// This worker's link to `peer` is gone, or the one that its answers came by, and with it every answer that was to come.
    /// Must come before [`peer_up`](Coordinator::peer_up) when a link is replaced.
    pub fn peer_down<S: Shell>(&mut self, shell: &mut S, now: Now, peer: NodeId) {
        if !remove(&mut self.env.linked, peer) {
            return;
        }
        self.env.update_live();
        for op in self.operations.ids() {
            self.deliver_to(shell, now, op, 0, peer, Event::Lost);
        }
    }

    /// The failure detector takes `peer` for dead: from now on it counts as down, link or no link. What is under way
    /// goes on, and answers of it that still come count.
    pub fn suspect(&mut self, peer: NodeId) {
        insert(&mut self.env.suspected, peer);
        self.env.update_live();
    }

    /// The failure detector takes `peer` for alive again. That is how all peers begin.
    pub fn trust(&mut self, peer: NodeId) {
        if remove(&mut self.env.suspected, peer) {
            self.env.update_live();
        }
    }

    pub(super) fn on_alarm<S: Shell>(&mut self, shell: &mut S, now: Now, op: OpId, alarm: Alarm) {
        let Some(slot) = self.operations.get_mut(op) else { return };
        if alarm == Alarm::Deadline && slot.deadline > now.mono {
            return;
        }
        let mut cx = Context { env: &mut self.env, shell, now, op };
        let step = match (&mut slot.kind, alarm) {
            (Kind::Read(read), Alarm::Hurry) => read.on_hurry(&mut cx),
            (Kind::Modify(modify), Alarm::Hurry) => modify.on_hurry(&mut cx),
            (_, Alarm::Hurry) => Step::Pending,
            (Kind::Read(read), _) => Step::fail(read.round.timeout()),
            (Kind::Write(write), _) => write.on_deadline(),
            (Kind::Modify(modify), _) => modify.on_deadline(),
            (Kind::Forward(forward), _) => forward.give_up(),
            (Kind::Scan(scan), _) => scan.give_up(),
            (Kind::Flush(flush), _) => {
                let step = flush.on_deadline(&mut cx);
                slot.deadline = cx.begin_scan_step();
                step
            }
            (Kind::Inspect(inspect), _) => inspect.finish(),
            (Kind::HandOff(hand_off), _) => hand_off.give_up(),
        };
        self.conclude(shell, now, op, step);
    }

    fn deliver<S: Shell>(&mut self, shell: &mut S, now: Now, from: NodeId, request: RequestId, event: Event) {
        let (op, round) = OpId::of_request(request);
        self.deliver_to(shell, now, op, round, from, event);
    }

    fn deliver_to<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        op: OpId,
        round: u8,
        from: NodeId,
        event: Event,
    ) {
        let Some(slot) = self.operations.get_mut(op) else { return };
        let mut cx = Context { env: &mut self.env, shell, now, op };
        let step = match &mut slot.kind {
            Kind::Read(read) => read.on_event(&mut cx, from, round, event),
            Kind::Write(write) => write.on_event(from, round, &event),
            Kind::Modify(modify) => modify.on_event(&mut cx, from, round, event),
            Kind::Forward(forward) => forward.on_event(&mut cx, from, event),
            Kind::Scan(scan) => {
                let pages_before = scan.pages_done();
                let step = scan.on_event(&mut cx, from, round, event);
                if scan.pages_done() != pages_before {
                    slot.deadline = cx.begin_scan_step();
                }
                step
            }
            Kind::Flush(flush) => {
                let was_reading = flush.is_reading_clocks();
                let step = flush.on_event(&mut cx, from, round, &event);
                if was_reading && !flush.is_reading_clocks() {
                    slot.deadline = cx.begin_scan_step();
                }
                step
            }
            Kind::Inspect(inspect) => inspect.on_event(from, event),
            Kind::HandOff(hand_off) => hand_off.on_event(&mut cx, from, round, event),
        };
        self.conclude(shell, now, op, step);
    }

    /// Does what an operation's step says.
    pub(super) fn conclude<S: Shell>(&mut self, shell: &mut S, now: Now, op: OpId, step: Step) {
        match step {
            Step::Pending => {}
            Step::Finish(outcome) => {
                if let Some(start) = self.remove(shell, now, op) {
                    self.end(shell, start, outcome);
                }
            }
            Step::FinishAndLinger(outcome) => self.linger(shell, now, op, outcome),
            Step::Settled(acked) => {
                let start = self.remove(shell, now, op);
                if let Some(Start { origin: Origin::Client(tag), .. }) = start {
                    shell.settled(tag, acked);
                }
            }
            Step::Forget => drop(self.remove(shell, now, op)),
        }
    }

    /// Ends an operation for whoever waits and keeps it for its late answers, if there are any and there is room.
    fn linger<S: Shell>(&mut self, shell: &mut S, now: Now, op: OpId, outcome: Outcome) {
        let has_room = self.operations.lingering() < self.env.config.lingering_max;
        let Some(slot) = self.operations.get_mut(op) else { return };
        let start = start_of(slot);
        let next = match &mut slot.kind {
            Kind::Write(write) if write.round.is_settled() || !has_room => write.on_deadline(),
            Kind::Modify(modify) => {
                if !has_room {
                    modify.cut_short();
                }
                modify.linger(shell)
            }
            _ => Step::Pending,
        };
        self.operations.linger(op);
        self.end(shell, start, outcome);
        self.conclude(shell, now, op, next);
    }

    /// Takes an operation out, giving its lock back and leaving hints for owners that miss what it wrote.
    fn remove<S: Shell>(&mut self, shell: &mut S, now: Now, op: OpId) -> Option<Start> {
        let mut slot = self.operations.remove(op)?;
        let mut cx = Context { env: &mut self.env, shell, now, op };
        match &mut slot.kind {
            Kind::Write(write) => write.leave_hints(&mut cx),
            Kind::Modify(modify) => {
                modify.leave_hints(&mut cx);
                modify.release(cx.shell);
            }
            _ => {}
        }
        Some(start_of(&slot))
    }

    /// Tells whoever waits how an operation ended.
    pub(super) fn end<S: Shell>(&mut self, shell: &mut S, start: Start, outcome: Outcome) {
        match start.origin {
            Origin::Client(tag) => {
                self.env.statistics.count(start.operation, start.level, &outcome);
                shell.finish(tag, outcome);
            }
            Origin::Peer { link, request } => shell.respond(link, &serve::modified(request, outcome)),
            Origin::Nobody => {}
        }
    }

    /// Does what a peer asks of this node.
    fn serve<S: Shell>(&mut self, shell: &mut S, now: Now, from: NodeId, link: LinkId, message: Message<'_>) {
        self.env.statistics.served += 1;
        match message {
            Message::Apply { request, row, want_digest: false, hints } => {
                shell.apply(Ticket::Peer { link, request, answer: PeerAnswer::Applied }, &row);
                keep_hints(shell, self.env.config.node, &row, hints);
            }
            Message::Apply { request, row, want_digest: true, hints } => {
                let answer = PeerAnswer::AppliedWithDigest;
                shell.apply_and_read(Ticket::Peer { link, request, answer }, &row);
                keep_hints(shell, self.env.config.node, &row, hints);
            }
            Message::Entrust { request, forwarded, reply, digest, row } => {
                let entrusted = Entrusted { link, request, digest, reply };
                let ticket = if self.entrust(from, forwarded, entrusted) {
                    Ticket::Op(forwarded)
                } else {
                    // Its client no longer waits: the row counts all the same.
                    Ticket::Peer { link, request, answer: PeerAnswer::AppliedWithDigest }
                };
                shell.apply_and_read(ticket, &row);
            }
            Message::KeepHint { target, key, missed } if target != self.env.config.node => {
                shell.hint(target, key, missed);
            }
            Message::Repair { request, key, record } => serve::repair(shell, link, request, key, &record),
            Message::Read { request, key } => serve::read(shell, link, request, key, PeerAnswer::Found),
            Message::Digest { request, key } => {
                serve::read(shell, link, request, key, PeerAnswer::Digested);
            }
            Message::Modify { request, key, levels, modify } => {
                let Some(replicas) = self.led_here(key, levels.quorums) else {
                    return shell.respond(link, &Message::Failed { request, reason: Reason::NotReplica });
                };
                let origin = Origin::Peer { link, request };
                let start = Start { origin, operation: Operation::Modify, level: levels.write };
                let forwarder = Some(Forwarder { node: from, link, request });
                self.modify_here(shell, now, start, forwarder, key, &modify, levels, replicas);
            }
            Message::Scan { request, range } => {
                super::scan::serve(shell, link, request, &range, PeerAnswer::Scanned);
            }
            Message::Count { request, range } => {
                super::scan::serve(shell, link, request, &range, PeerAnswer::Counted);
            }
            Message::ClockRead { request } => {
                shell.respond(link, &Message::ClockReply { request, clock: self.env.clock.now() });
            }
            Message::Horizon { request, databases, version } => {
                // What this node writes from now on is newer than the horizon.
                let _ = self.env.clock.observe(version.hlc, now.wall);
                let ticket = Ticket::Peer { link, request, answer: PeerAnswer::HorizonSet };
                shell.set_horizon(ticket, databases, version);
            }
            _ => {}
        }
    }

    /// Gives a forwarded increment the reply that its primary entrusts to this node. `false` if it has ended.
    fn entrust(&mut self, primary: NodeId, forwarded: RequestId, entrusted: Entrusted) -> bool {
        let (op, _) = OpId::of_request(forwarded);
        match self.operations.get_mut(op).map(|slot| &mut slot.kind) {
            Some(Kind::Forward(forward)) => forward.entrust(primary, entrusted),
            _ => false,
        }
    }

    /// The places of `key` for a read-modify-write that a peer wants done here. If this node has none, yet every member
    /// may stand in: the peer sees other replicas down than this node does. Then this node takes the last place, from
    /// a replica that is down if there is one: its own counter cells must be stored here, and a hint hands them on.
    /// `None` if it may not.
    fn led_here(&self, key: KeyRef<'_>, quorums: Quorums) -> Option<Replicas> {
        let (env, here) = (&self.env, self.env.config.node);
        if env.has_failed {
            return None;
        }
        let mut replicas = env.replicas(key, quorums);
        if replicas.index_of(here).is_none() {
            if quorums == Quorums::Strict || !env.ring.contains(here) {
                return None;
            }
            let last = replicas.len().checked_sub(1)?;
            let absent = (0..replicas.len()).rev().find(|&index| replicas.is_absent(index));
            replicas.stand_in(absent.unwrap_or(last), here);
        }
        Some(replicas)
    }
}

/// How the operation of `slot` began, with who still waits for it.
fn start_of(slot: &Slot) -> Start {
    let origin = match &slot.kind {
        Kind::Modify(modify) if modify.is_told() => Origin::Nobody,
        _ => slot.origin,
    };
    Start { origin, operation: slot.operation, level: slot.level }
}

fn insert(sorted: &mut Vec<NodeId>, node: NodeId) {
    if let Err(at) = sorted.binary_search(&node) {
        sorted.insert(at, node);
    }
}

fn remove(sorted: &mut Vec<NodeId>, node: NodeId) -> bool {
    sorted.binary_search(&node).map(|at| sorted.remove(at)).is_ok()
}
