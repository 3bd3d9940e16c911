//! Clients' operations on their way: asked for, taken by a node, ended, judged, given up.

use gyre_cluster::coordinator::{Coordinator, Tag};
use gyre_cluster::level::Quorums;
use gyre_cluster::message::Levels;
use gyre_cluster::modify::context::CausalContext;
use gyre_cluster::modify::{ExpiryChange, Modify, SetCondition};
use gyre_cluster::outcome::Outcome;
use gyre_cluster::time::Now;
use gyre_storage::{KeyRef, UnixMillis, Version};

use crate::checkers::Floor;
use crate::checkers::journal::word;
use crate::event::Event;
use crate::handoff;
use crate::history::{Action, End, Operation};
use crate::mutation::Mutation;
use crate::queue::{MS, Micros, SECOND};
use crate::shell::SimShell;
use crate::workload::{self, Intent};
use crate::world::World;

/// No operation takes longer on a node that is not paused: a read-modify-write that was forwarded, and a little.
const OPERATION_TIME_MAX: Micros = 2_600 * MS;

impl World {
    /// A client does its next step.
    pub(crate) fn client(&mut self, client: usize) {
        if self.is_resting || !self.clients[client].waiting.is_empty() {
            return;
        }
        let mut intents = std::mem::take(&mut self.clients[client].next);
        if intents.is_empty() {
            intents = workload::step(&mut self.env.random, &self.plan);
        }
        for mut intent in intents {
            if self.checkers.is_full(intent.key, intent.action) {
                intent.action = Action::Get;
            }
            let (node, worker) = (self.clients[client].node, self.clients[client].worker);
            let tag = self.ask(Some(client), node, worker, intent);
            self.clients[client].waiting.push(tag);
            self.env.queue.after(self.plan.patience, Event::Patience { tag });
        }
    }

    /// Sends an operation to a node.
    pub(crate) fn ask(&mut self, client: Option<usize>, node: usize, worker: usize, intent: Intent) -> Tag {
        let tag = self.history.next_tag();
        self.history.add(Operation {
            tag,
            client,
            node,
            worker,
            key: intent.key,
            action: intent.action,
            levels: intent.levels,
            begun_at: None,
            ended_at: None,
            end: End::Pending,
            expiry_ms: None,
            version: None,
            count: None,
            floor: Floor::default(),
            flushed: Version::ZERO,
            siblings: None,
            is_binding: false,
            is_tainted: false,
            is_abandoned: false,
        });
        let delay = self.env.random.within(20..300);
        self.env.queue.after(delay, Event::Invoke { node, tag });
        tag
    }

    /// An operation reaches its node.
    pub(crate) fn invoke(&mut self, node: usize, tag: Tag) {
        let now = self.env.queue.now();
        if self.nodes[node].process.is_none() {
            // The connection is refused: nothing was sent.
            return self.end_without_answer(tag, End::Unavailable);
        }
        let wall = self.nodes[node].now(now).wall;
        let operation = self.history.get_mut(tag);
        operation.begun_at = Some(now);
        operation.expiry_ms = match operation.action {
            Action::Set { ttl_ms } | Action::GetExpire { ttl_ms } | Action::SetSibling { ttl_ms, .. } => {
                ttl_ms.map(|ttl| wall.0 + ttl)
            }
            _ => None,
        };
        self.checkers.begin(operation);
        let (operation, key) = (operation.clone(), self.plan.keys[operation.key].clone());
        let pad = if self.env.random.chance(50) { self.env.random.below(3_000) as usize } else { 0 };
        let value = [word(tag.0).into_bytes(), vec![b'.'; pad]].concat();
        let from = match operation.action {
            Action::SetSibling { from, .. } => from,
            Action::DeleteSiblings { from } => Some(from),
            _ => None,
        };
        let context = from.and_then(|from| self.contexts.get(&from.0)).cloned().unwrap_or_default();
        let version = self.nodes[node].step(&mut self.env, operation.worker, |core, shell, now| {
            start(core, shell, now, &operation, key.key_ref(), (&value, &context))
        });
        if let Some(Some(version)) = version {
            self.history.get_mut(tag).version = Some(version);
        }
    }

    /// Tells clients how their operations have ended.
    pub(crate) fn deliver(&mut self) {
        for key in std::mem::take(&mut self.env.merged_siblings) {
            self.checkers.merged_siblings(key);
        }
        while let Some((tag, outcome)) = self.env.finished.pop() {
            match handoff::node_of(tag) {
                Some(node) => self.nodes[node].handed(&mut self.env, tag, &outcome),
                None if self.flushes.contains_key(&tag.0) => self.flushed(tag, &outcome),
                None => self.complete(tag, outcome),
            }
        }
    }

    fn complete(&mut self, tag: Tag, outcome: Outcome) {
        let now = self.env.queue.now();
        let operation = self.history.get_mut(tag);
        if operation.begun_at.is_none() || operation.end != End::Pending {
            let what = format!("it ended again, in {outcome:?}\n{operation}");
            return self.violated(Err(what));
        }
        operation.ended_at = Some(now);
        let (node, key) = (operation.node, operation.key);
        self.judged = key;
        let wall = self.nodes[node].now(now).wall;
        let verdict = self.checkers.end(operation, &outcome, &self.env, wall);
        let operation = operation.clone();
        self.history.settle(tag);
        self.count(&operation);
        self.env.queue.fold(tag.0 << 8 | operation.end as u64);
        if let (End::Done, Some(version)) = (operation.end, operation.version) {
            self.env.journal.acknowledged(node, key, version);
        }
        if let (Action::GetSiblings, Outcome::Record(record)) = (operation.action, &outcome) {
            let mut context = Vec::new();
            Mutation::distort_context(self.env.mutation, CausalContext::of(record)).encode(&mut context);
            self.contexts.insert(tag.0, context);
        }
        if let Outcome::Record(record) = &outcome {
            self.env.journal.shown(self.plan.keys[key].key_ref(), record, node);
        }
        self.violated(verdict);
        let verdict = self.check_time(&operation).and_then(|()| self.check_available(&operation));
        self.violated(verdict);
        match operation.client {
            Some(client) => self.tell(client, &operation),
            None => drop(self.own.insert(tag.0, outcome)),
        }
    }

    /// Invariants 10 and 12 as far as time goes: operations end in time, and well once the cluster has recovered.
    fn check_time(&self, operation: &Operation) -> Result<(), String> {
        let (Some(begun_at), Some(ended_at)) = (operation.begun_at, operation.ended_at) else {
            return Ok(());
        };
        if ended_at - begun_at > OPERATION_TIME_MAX && self.resumed_at[operation.node] < begun_at {
            return Err(format!("it took too long\n{operation}"));
        }
        let has_failed = !matches!(operation.end, End::Done | End::Refused);
        if has_failed && self.recovered_at.is_some_and(|at| begun_at >= at) {
            return Err(format!("it failed though the cluster had recovered\n{operation}"));
        }
        Ok(())
    }

    /// Invariant 12: a sloppy read or blind write is refused only if its node knows fewer live nodes than must answer.
    fn check_available(&self, operation: &Operation) -> Result<(), String> {
        let is_sloppy = operation.levels.quorums == Quorums::Sloppy && !operation.action.is_modify();
        if operation.end != End::Unavailable || !is_sloppy {
            return Ok(());
        }
        let Some(process) = &self.nodes[operation.node].process else { return Ok(()) };
        if !process.hlc.is_settled() {
            return Ok(());
        }
        let own = usize::from(process.store.poisoned().is_none());
        let alive = process.workers[operation.worker].core.live_peers().len() + own;
        let replicas = self.checkers.key(operation.key).replicas.len();
        let level = if operation.action.is_read() { operation.levels.read } else { operation.levels.write };
        let level = Mutation::distort(self.env.mutation, level);
        if alive >= level.needed(replicas) {
            return Err(format!("it was refused though its node knew {alive} live nodes\n{operation}"));
        }
        Ok(())
    }

    /// The node of an operation has stopped.
    pub(crate) fn lost(&mut self, tag: Tag) {
        self.end_without_answer(tag, End::Lost);
    }

    fn end_without_answer(&mut self, tag: Tag, end: End) {
        let operation = self.history.get_mut(tag);
        operation.end = end;
        operation.ended_at = Some(self.env.queue.now());
        let operation = operation.clone();
        self.history.settle(tag);
        self.count(&operation);
        if let Some(client) = operation.client {
            self.tell(client, &operation);
        }
    }

    fn count(&mut self, operation: &Operation) {
        self.report.count(operation);
        if matches!(operation.end, End::Unavailable | End::Overloaded) {
            self.report.refusals.count(operation, &self.nodes[operation.node]);
        }
    }

    fn tell(&mut self, client: usize, operation: &Operation) {
        if operation.is_abandoned {
            return;
        }
        let Operation { key, action, levels, .. } = *operation;
        let intent = Intent { key, action, levels };
        let nodes = self.plan.nodes;
        self.clients[client].told(&mut self.env.random, nodes, operation.tag, intent, operation.end);
        self.go_on(client);
    }

    fn go_on(&mut self, client: usize) {
        if self.clients[client].waiting.is_empty() {
            let delay = workload::think(&mut self.env.random, &self.plan) + MS;
            self.env.queue.after(delay, Event::Client { client });
        }
    }

    /// A client has waited long enough.
    pub(crate) fn patience(&mut self, tag: Tag) {
        let operation = self.history.get_mut(tag);
        let Some(client) = operation.client else { return };
        if self.clients[client].give_up(&mut self.env.random, self.plan.nodes, tag) {
            operation.is_abandoned = true;
            self.report.given_up += 1;
            self.go_on(client);
        }
    }

    /// Runs until an operation of the simulation's own has ended.
    pub(crate) fn outcome_of(&mut self, tag: Tag) -> Result<Outcome, String> {
        let end = self.env.queue.now() + 5 * SECOND;
        while !self.own.contains_key(&tag.0) && self.env.queue.now() < end {
            self.run_until(self.env.queue.now() + MS)?;
        }
        self.own.remove(&tag.0).ok_or_else(|| format!("{} never ended", self.history.get(tag)))
    }
}

/// Starts an operation; the version of the row it stamped, if it did so at once.
fn start(
    core: &mut Coordinator,
    shell: &mut SimShell<'_>,
    now: Now,
    operation: &Operation,
    key: KeyRef<'_>,
    (value, context): (&[u8], &[u8]),
) -> Option<Version> {
    let mutation: Option<Mutation> = shell.env.mutation;
    let levels = Levels {
        read: Mutation::distort(mutation, operation.levels.read),
        write: Mutation::distort(mutation, operation.levels.write),
        quorums: operation.levels.quorums,
    };
    let tag = operation.tag;
    let expiry = operation.expiry_ms.map(UnixMillis);
    let held = |holder: Tag| word(holder.0).into_bytes();
    let modify = match operation.action {
        Action::Get | Action::GetSiblings => {
            core.read(shell, now, tag, key, levels.reading());
            return None;
        }
        Action::Set { .. } => {
            core.write(shell, now, tag, key, Some(value), expiry, levels.writing())?;
            return shell.stamped;
        }
        Action::Delete => {
            core.write(shell, now, tag, key, None, None, levels.writing())?;
            return shell.stamped;
        }
        Action::Release { holder } => {
            let held = held(holder);
            core.modify(shell, now, tag, key, &Modify::DeleteIfEqual { value: &held }, levels);
            return None;
        }
        Action::Add { delta } => Modify::Add { delta },
        Action::Append => Modify::Append { value },
        Action::Acquire => {
            // A lock's value must be known when it is given back.
            let value = value.split(|&byte| byte == b'.').next().unwrap_or(value);
            let (condition, expiry) = (SetCondition::Nx, ExpiryChange::Clear);
            core.modify(shell, now, tag, key, &Modify::Set { value, condition, expiry, get: false }, levels);
            return None;
        }
        Action::GetDelete => Modify::GetDelete,
        Action::SetSibling { .. } => Modify::SetSibling { context, value, expiry },
        Action::DeleteSiblings { .. } => Modify::DeleteSiblings { context },
        Action::GetExpire { .. } => {
            Modify::GetExpire { expiry: expiry.map_or(ExpiryChange::Clear, ExpiryChange::At) }
        }
    };
    core.modify(shell, now, tag, key, &modify, levels);
    None
}
