//! FLUSHDB and FLUSHALL: a deletion horizon on every member, without touching a key.
//!
//! First every live member's clock is read (which moves this node's clock past it), so that the horizon is after every
//! write acknowledged before the command. Then the horizon goes to every live member. It is done when so many have it
//! that every preference list must have as many as the level asks for: all but `replicas - needed`; and it is begun only
//! when as many clocks were read, so that of every write that was acknowledged at that level one of its replicas was asked.
//! Members that are down learn of it from the topology document.

use gyre_storage::Version;

use super::context::{Context, Event, Step};
use super::shell::{Shell, Ticket};
use crate::level::Consistency;
use crate::message::Message;
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};
use crate::topology::Databases;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Asked,
    Done,
    Failed,
}

const CLOCKS: u8 = 1;
const HORIZON: u8 = 2;

/// A FLUSHDB or FLUSHALL in progress.
#[derive(Debug)]
pub(crate) struct FlushOp {
    databases: Databases,
    round: u8,
    needed: usize,
    members: Vec<(NodeId, Member)>,
}

impl FlushOp {
    /// Reads the clocks, unless too few members are alive.
    pub(crate) fn start<S: Shell>(
        cx: &mut Context<'_, S>,
        databases: Databases,
        level: Consistency,
    ) -> Result<FlushOp, Failure> {
        let ring = cx.env.ring.clone();
        let replicas = ring.replicas_per_slot();
        let spare = replicas.saturating_sub(level.needed(replicas));
        let needed = ring.members().len().saturating_sub(spare).max(1);
        let alive = ring.members().iter().filter(|&&member| cx.env.is_alive(member)).count();
        if alive < needed {
            return Err(Failure::Unavailable { needed, alive });
        }
        let request = cx.op.request(CLOCKS);
        let members = ring.members().iter().map(|&member| {
            let state = match cx.is_self(member) {
                true => Member::Done,
                false if cx.send(member, &Message::ClockRead { request }) => Member::Asked,
                false => Member::Failed,
            };
            (member, state)
        });
        let members = members.collect();
        Ok(FlushOp { databases, round: CLOCKS, needed, members })
    }

    /// Whether it waits for clocks, which takes nobody long; storing a horizon may.
    pub(crate) fn is_reading_clocks(&self) -> bool {
        self.round == CLOCKS
    }

    /// Goes on as far as the answers allow.
    pub(crate) fn advance<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        if self.is_reading_clocks() {
            if self.count(Member::Asked) > 0 {
                return Step::Pending;
            }
            let alive = self.count(Member::Done);
            if alive < self.needed {
                // What the others have stamped may be on enough replicas, and after the horizon.
                return Step::fail(Failure::Unavailable { needed: self.needed, alive });
            }
            self.send_horizon(cx);
        }
        let (done, asked) = (self.count(Member::Done), self.count(Member::Asked));
        if done >= self.needed {
            Step::Finish(Outcome::Written)
        } else if done + asked < self.needed {
            Step::time_out(self.needed, done)
        } else {
            Step::Pending
        }
    }

    pub(crate) fn on_event<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        node: NodeId,
        round: u8,
        event: &Event,
    ) -> Step {
        let is_lost = matches!(event, Event::Lost);
        let is_current = round == self.round || is_lost;
        let state = match event {
            Event::Clock | Event::Applied { .. } => Member::Done,
            _ => Member::Failed,
        };
        for (_, member) in self.members.iter_mut().filter(|(member, _)| *member == node && is_current) {
            if *member == Member::Asked {
                *member = state;
            }
        }
        self.advance(cx)
    }

    /// A step takes too long. As long as enough clocks were read, those that could not be must not stop the flush: their
    /// nodes are stuck, and what they stamped meanwhile counts as written at the same time.
    pub(crate) fn on_deadline<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        if self.is_reading_clocks() {
            self.members.iter_mut().filter(|(_, state)| *state == Member::Asked).for_each(|(_, state)| {
                *state = Member::Failed;
            });
            return self.advance(cx);
        }
        Step::time_out(self.needed, self.count(Member::Done))
    }

    fn send_horizon<S: Shell>(&mut self, cx: &mut Context<'_, S>) {
        self.round = HORIZON;
        let version: Version = cx.env.stamp(cx.now);
        let (databases, request) = (self.databases, cx.op.request(HORIZON));
        for (node, state) in &mut self.members {
            let sent = if cx.is_self(*node) {
                cx.shell.set_horizon(Ticket::Op(request), databases, version);
                true
            } else {
                cx.send(*node, &Message::Horizon { request, databases, version })
            };
            *state = if sent { Member::Asked } else { Member::Failed };
        }
    }

    fn count(&self, state: Member) -> usize {
        self.members.iter().filter(|(_, member)| *member == state).count()
    }
}
