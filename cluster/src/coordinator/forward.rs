//! Read-modify-writes that this node has forwarded to their primary.
//!
//! The primary does the work and answers. An increment takes a shorter way if this node is a replica of the key and two
//! replicas decide: the primary, having stored the row, *entrusts* the reply to this node together with the row
//! ([`Message::Entrust`]) and the digest of its own record. If this node then holds the same, it and the primary are a
//! quorum that has the row and agrees on what was read, and the client has its answer after two messages instead of
//! four. Otherwise the primary hears what this node holds, and answers as it would have without.
//!
//! This node's word answers the link the row came on: that one leads to the worker that asks.

use super::context::{Context, Event, Step};
use super::shell::{LinkId, Shell};
use crate::message::{Message, Reason, RequestId};
use crate::modify::ModifyReply;
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};

/// The node that has forwarded a read-modify-write here, and how to answer it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarder {
    pub(crate) node: NodeId,
    pub(crate) link: LinkId,
    pub(crate) request: RequestId,
}

/// A reply that the primary has entrusted to this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entrusted {
    /// Where the row came from.
    pub(crate) link: LinkId,
    /// The primary's request.
    pub(crate) request: RequestId,
    /// What this node's record must be.
    pub(crate) digest: u64,
    pub(crate) reply: i64,
}

/// A read-modify-write that runs on another node.
#[derive(Debug)]
pub(crate) struct ForwardOp {
    primary: NodeId,
    needed: usize,
    entrusted: Option<Entrusted>,
}

impl ForwardOp {
    pub(crate) fn new(primary: NodeId, needed: usize) -> ForwardOp {
        ForwardOp { primary, needed, entrusted: None }
    }

    /// Takes the reply in that `node` entrusts, to be given when the row is stored here. `false`: it is not for `node`
    /// to say.
    pub(crate) fn entrust(&mut self, node: NodeId, entrusted: Entrusted) -> bool {
        let is_first = node == self.primary && self.entrusted.is_none();
        if is_first {
            self.entrusted = Some(entrusted);
        }
        is_first
    }

    pub(crate) fn on_event<S: Shell>(&mut self, cx: &mut Context<'_, S>, node: NodeId, event: Event) -> Step {
        if cx.is_self(node) {
            return self.on_stored(cx, event);
        }
        if node != self.primary {
            return Step::Pending;
        }
        match event {
            Event::Modified(Ok(reply)) => Step::Finish(Outcome::Modified(reply)),
            Event::Modified(Err(refusal)) => Step::Finish(Outcome::Refused(refusal)),
            Event::Refused(reason) => Step::fail(self.failure(reason)),
            Event::Lost => self.give_up(),
            _ => Step::Pending,
        }
    }

    /// The entrusted row is stored here, or could not be: tells the primary, and the client if the records are equal.
    fn on_stored<S: Shell>(&mut self, cx: &mut Context<'_, S>, event: Event) -> Step {
        let Some(Entrusted { link, request, digest, reply }) = self.entrusted else { return Step::Pending };
        match event {
            Event::Found(record) => {
                let own = record.digest();
                cx.shell.respond(link, &Message::Applied { request, digest: Some(own) });
                if own == digest {
                    return Step::Finish(Outcome::Modified(ModifyReply::Integer(reply)));
                }
                Step::Pending
            }
            Event::Refused(reason) => {
                cx.shell.respond(link, &Message::Failed { request, reason });
                Step::Pending
            }
            _ => Step::Pending,
        }
    }

    /// It may have been done, and nobody will ever tell.
    pub(crate) fn give_up(&self) -> Step {
        Step::time_out(self.needed, 0)
    }

    fn failure(&self, reason: Reason) -> Failure {
        match reason {
            Reason::Storage => Failure::Timeout { needed: self.needed, acked: 0 },
            Reason::Overloaded => Failure::Overloaded,
            // The rings of the two nodes differ for a moment. Nothing was done, and a repetition will go right.
            Reason::NotReplica => Failure::Unavailable { needed: self.needed, alive: 0 },
            Reason::Unavailable { needed, alive } => {
                Failure::Unavailable { needed: usize::from(needed), alive: usize::from(alive) }
            }
            Reason::Timeout { needed, acked } => {
                Failure::Timeout { needed: usize::from(needed), acked: usize::from(acked) }
            }
        }
    }
}
