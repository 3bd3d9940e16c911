//! The replica's side: what this node does for the coordinators of its peers.

use gyre_storage::{KeyRef, Record};

use super::read::apply_rows;
use super::shell::{LinkId, PeerAnswer, Shell, Ticket};
use crate::message::{Message, Reason, RequestId};
use crate::outcome::{Failure, Outcome};

/// Reads a record, or its digest, for a peer.
pub(crate) fn read<S: Shell>(
    shell: &mut S,
    link: LinkId,
    request: RequestId,
    key: KeyRef<'_>,
    answer: PeerAnswer,
) {
    if let Some(record) = shell.read(Ticket::Peer { link, request, answer }, key) {
        answer_record(shell, link, request, answer, Some(record));
    }
}

/// Stores a repair for a peer.
pub(crate) fn repair<S: Shell>(
    shell: &mut S,
    link: LinkId,
    request: RequestId,
    key: KeyRef<'_>,
    rows: &Record,
) {
    let ticket = if request == RequestId::NONE {
        Ticket::Nobody
    } else if rows.is_absent() {
        shell.respond(link, &Message::Applied { request, digest: None });
        return;
    } else {
        Ticket::Peer { link, request, answer: PeerAnswer::Applied }
    };
    apply_rows(shell, ticket, key, rows);
}

/// Answers a peer's read, or a write that wanted the digest; `None` says that the store failed.
pub(crate) fn answer_record<S: Shell>(
    shell: &mut S,
    link: LinkId,
    request: RequestId,
    answer: PeerAnswer,
    record: Option<Record>,
) {
    let message = match (record, answer) {
        (Some(record), PeerAnswer::AppliedWithDigest) => {
            Message::Applied { request, digest: Some(record.digest()) }
        }
        (Some(record), PeerAnswer::Digested) => Message::Digested { request, digest: record.digest() },
        (Some(record), _) => Message::Found { request, record },
        (None, _) => Message::Failed { request, reason: Reason::Storage },
    };
    shell.respond(link, &message);
}

/// Answers a peer's write; `false` says that the store failed.
pub(crate) fn answer_applied<S: Shell>(
    shell: &mut S,
    link: LinkId,
    request: RequestId,
    answer: PeerAnswer,
    is_stored: bool,
) {
    let message = match (is_stored, answer) {
        (true, PeerAnswer::HorizonSet) => Message::HorizonSet { request },
        (true, _) => Message::Applied { request, digest: None },
        (false, _) => Message::Failed { request, reason: Reason::Storage },
    };
    shell.respond(link, &message);
}

/// The answer to a read-modify-write that a peer forwarded here.
pub(crate) fn modified(request: RequestId, outcome: Outcome) -> Message<'static> {
    let byte = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
    let reason = match outcome {
        Outcome::Modified(reply) => return Message::Modified { request, result: Ok(reply) },
        Outcome::Refused(refusal) => return Message::Modified { request, result: Err(refusal) },
        Outcome::Failed(Failure::Unavailable { needed, alive }) => {
            Reason::Unavailable { needed: byte(needed), alive: byte(alive) }
        }
        Outcome::Failed(Failure::Timeout { needed, acked }) => {
            Reason::Timeout { needed: byte(needed), acked: byte(acked) }
        }
        Outcome::Failed(Failure::Overloaded) => Reason::Overloaded,
        // Nothing was done, and soon it would be.
        Outcome::Failed(Failure::ClockUnsettled) => Reason::NotReplica,
        other => unreachable!("a read-modify-write does not end in {other:?}"),
    };
    Message::Failed { request, reason }
}
