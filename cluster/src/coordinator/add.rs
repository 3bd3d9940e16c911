//! Increments in a single round.
//!
//! Only the actor itself writes its counter cell, and it does so under the key's lock. So the primary knows its cell's
//! newest row without asking, adds to it, stores the row here and sends it to the others. As many of them as the read
//! level asks for beside this node answer with the digest of what they then hold; the rest only store the row, which
//! spares them a read. If those hold what this node holds, this node's record was up to date, and its value is the
//! reply: read and write have taken one round.
//!
//! If one of them is slow, the others' records are fetched instead as soon as enough have the row. If they differ,
//! somebody knows a register or a cell that this node does not. The caller then fetches and merges their records. On
//! the same base the increment stands and the merged record has the value. On a newer base it is void, like everything
//! counted on the older one, and is made once more on the merged record. That cannot go on: the merged record has every
//! write that was acknowledged before the operation began, so a base that is newer still was written meanwhile, and may
//! be said to come after.
//!
//! If a replica has forwarded the increment and two replicas decide, the round goes by that replica: the row is stored
//! here first, and then goes to it together with the reply ([`super::forward`]). It must not be made once more before
//! that replica has said that it differs: its client may have the answer ([`Told`]).
//!
//! What is not left to this round: refusals (this node's record may be out of date) and keys whose register has
//! expired (an increment then starts a new register).

use gyre_storage::{
    Body, Cell, CounterCell, KeyRef, Record, RecordBuilder, Row, UnixMillis, Version, View, parse_integer,
};

use super::context::{Context, Event, Step};
use super::forward::Forwarder;
use super::read::Known;
use super::replicas::Replicas;
use super::shell::Shell;
use super::write::WriteRound;
use crate::level::{Quorum, Verdict, bit};
use crate::message::{HintTargets, Message};
use crate::modify::{self, Modify, ModifyReply};
use crate::node::NodeId;

/// How an increment's round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddEnd {
    /// Not yet.
    Pending,
    /// Enough replicas hold what this node holds.
    Agreed,
    /// Enough replicas have the row, but too few hold what this node holds.
    Disagreed,
    /// Too few replicas can still get the row, or this node could not store it.
    Lost,
}

/// An increment on its way to the replicas, which its operation knows.
#[derive(Debug)]
pub(crate) struct AddRound {
    round: u8,
    /// This node's index among the replicas.
    here: usize,
    /// This node's record with the increment.
    record: Record,
    /// Its digest.
    digest: u64,
    reply: i64,
    /// The increment's row.
    cell: CounterCell,
    /// Who has the row.
    heard: Quorum,
    /// Who holds the same record. Replicas that were not asked for a digest count as failed.
    holders: Quorum,
    /// A replica that was asked for its digest is slow: who has answered must do.
    is_late: bool,
    /// The replica that may answer its client itself.
    entrusted: Option<Entrusted>,
}

/// The part that the replica plays which has forwarded the increment.
#[derive(Clone, Copy, Debug)]
struct Entrusted {
    to: Forwarder,
    /// Its index among the replicas.
    place: usize,
    is_sent: bool,
    told: Told,
}

/// Whether the forwarder has answered its client, as far as the primary knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has not, and leaves that to the primary.
    No,
    /// It has or will if what it holds has this digest, which it will say, unless it is lost.
    Open { forwarder: NodeId, round: u8, digest: u64, is_lost: bool },
    /// It has.
    Yes,
}

impl Told {
    /// Takes in an answer of `round`.
    pub(crate) fn on_event(&mut self, node: NodeId, round: u8, event: &Event) {
        let Told::Open { forwarder, round: asked, digest, is_lost } = self else { return };
        if node != *forwarder {
            return;
        }
        match event {
            Event::Applied { digest: held } if round == *asked && *held == Some(*digest) => *self = Told::Yes,
            Event::Applied { .. } | Event::Refused(_) if round == *asked => *self = Told::No,
            Event::Lost => *is_lost = true,
            _ => {}
        }
    }
}

impl AddRound {
    /// Adds `delta` to this node's cell and sends it to the replicas. `None`: `record` does not allow the short way.
    /// `needed` is that of the read and of the write level.
    #[expect(clippy::too_many_arguments, reason = "surroundings, then what the operation knows")]
    pub(crate) fn start<S: Shell>(
        cx: &mut Context<'_, S>,
        replicas: &Replicas,
        forwarder: Option<Forwarder>,
        needed: (usize, usize),
        round: u8,
        key: KeyRef<'_>,
        record: &Record,
        delta: i64,
    ) -> Option<AddRound> {
        let here = replicas.index_of(cx.env.config.node)?;
        let change = modify::apply(&Modify::Add { delta }, record, cx.now.wall, cx.env.config.actor).ok()?;
        let (Some(row), ModifyReply::Integer(reply)) = (change.row, change.reply) else { return None };
        let version = cx.env.stamp_after(cx.now, record.newest_version());
        let row = row.row(key, version);
        let (Cell::Counter { actor }, Body::Counter { base, sum }) = (row.cell, row.body) else {
            return None;
        };
        let cell = CounterCell { actor, version, base, sum };
        let mut with_row = RecordBuilder::from(record);
        with_row.add(&row);
        let record = with_row.build();
        let entrusted = forwarder.and_then(|forwarder| entrusted(cx, replicas, forwarder, needed));
        let digests = match &entrusted {
            Some(entrusted) => bit(entrusted.place),
            None => asked_for_digests(cx, replicas, here, needed.0),
        };
        let mut holders = Quorum::new(needed.0, replicas.len());
        (0..replicas.len())
            .filter(|&index| index != here && digests & bit(index) == 0)
            .for_each(|index| holders.fail(index));
        let mut add = AddRound {
            round,
            here,
            digest: record.digest(),
            record,
            reply,
            cell,
            heard: Quorum::new(needed.0.max(needed.1), replicas.len()),
            holders,
            is_late: false,
            entrusted,
        };
        if entrusted.is_some() {
            cx.apply_here(round, &row);
            return Some(add);
        }
        cx.apply(replicas, round, &row, digests, |index| add.fail(index));
        if digests != 0 && replicas.len() > needed.0 {
            cx.env.timers.hurry(cx.now.mono + cx.env.hurry_delay(), cx.op);
        }
        Some(add)
    }

    /// If the reply is to be entrusted, and the row is stored here and nowhere else yet: sends it. What another node
    /// answers its client counts on this node's copy.
    pub(crate) fn entrust<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        replicas: &Replicas,
        key: KeyRef<'_>,
    ) {
        if !self.heard.has_acked(self.here) {
            return;
        }
        let Some(entrusted) = self.entrusted.as_mut().filter(|entrusted| !entrusted.is_sent) else { return };
        let Entrusted { to, place, .. } = *entrusted;
        entrusted.is_sent = true;
        let (forwarder, round, digest) = (to.node, self.round, self.digest);
        entrusted.told = Told::Open { forwarder, round, digest, is_lost: !self.heard.is_pending(place) };
        let CounterCell { actor, version, base, sum } = self.cell;
        let (cell, body) = (Cell::Counter { actor }, Body::Counter { base, sum });
        let row = Row { key, cell, version, expiry: None, body };
        for (index, node) in replicas.iter() {
            if index == self.here {
                continue;
            }
            if index == place {
                let (request, forwarded, reply) = (cx.op.request(round), to.request, self.reply);
                let message = Message::Entrust { request, forwarded, reply, digest, row };
                cx.shell.respond(to.link, &message);
            } else if !cx.apply_at(node, round, &row, false, HintTargets::NONE) {
                self.fail(index);
            }
        }
        cx.env.timers.hurry(cx.now.mono + cx.env.hurry_delay(), cx.op);
    }

    /// Whether agreement means that the forwarder has answered its client.
    pub(crate) fn is_entrusted(&self) -> bool {
        self.entrusted.is_some()
    }

    /// Whether the forwarder has answered its client: if not, the increment may be made once more should it be void.
    pub(crate) fn told(&self) -> Told {
        self.entrusted.map_or(Told::No, |entrusted| entrusted.told)
    }

    /// Takes in an answer of `round`.
    pub(crate) fn on_event(&mut self, replicas: &Replicas, node: NodeId, round: u8, event: &Event) {
        let Some(index) = replicas.index_of(node) else { return };
        if let Some(entrusted) = &mut self.entrusted {
            entrusted.told.on_event(node, round, event);
        }
        match event {
            Event::Applied { digest } if round == self.round => {
                self.heard.ack(index);
                if index == self.here || *digest == Some(self.digest) {
                    self.holders.ack(index);
                } else {
                    self.holders.fail(index);
                }
            }
            Event::Refused(_) if round == self.round => self.fail(index),
            Event::Lost => self.fail(index),
            _ => {}
        }
    }

    /// It takes longer than a digest should. `true` if one is awaited.
    pub(crate) fn hurry(&mut self) -> bool {
        self.is_late = true;
        self.holders.verdict() == Verdict::Pending
    }

    fn fail(&mut self, index: usize) {
        self.heard.fail(index);
        self.holders.fail(index);
    }

    /// Where the round stands. Nothing counts before the row is stored here: the next increment starts from it.
    pub(crate) fn end(&self) -> AddEnd {
        let here_failed = !self.heard.is_pending(self.here) && !self.heard.has_acked(self.here);
        match self.heard.verdict() {
            _ if here_failed => AddEnd::Lost,
            Verdict::Lost => AddEnd::Lost,
            Verdict::Met if self.heard.has_acked(self.here) => match self.holders.verdict() {
                Verdict::Met => AddEnd::Agreed,
                Verdict::Pending if !self.is_late => AddEnd::Pending,
                Verdict::Pending | Verdict::Lost => AddEnd::Disagreed,
            },
            Verdict::Met | Verdict::Pending => AddEnd::Pending,
        }
    }

    /// The value after the increment, as this node sees it.
    pub(crate) fn reply(&self) -> i64 {
        self.reply
    }

    /// The register version it counts on.
    pub(crate) fn base(&self) -> Version {
        self.record.base()
    }

    /// What is known of the replicas.
    pub(crate) fn known(&self, replicas: Replicas) -> Known<'_> {
        Known { replicas, record: &self.record, holders: self.holders, heard: self.heard }
    }

    /// Who has the increment's row.
    pub(crate) fn heard(&self) -> &Quorum {
        &self.heard
    }

    /// The increment's row as a write: who has it, and who has yet to answer.
    pub(crate) fn as_write(&self, replicas: Replicas) -> WriteRound {
        WriteRound::sent(replicas, self.heard, self.round, self.cell.version)
    }

    /// Too late, or too few.
    pub(crate) fn give_up(&self) -> Step {
        Step::time_out(self.heard.needed(), self.heard.acked())
    }
}

/// The forwarder, if the reply can be entrusted to it: it is a replica, all replicas are alive, and two decide.
fn entrusted<S: Shell>(
    cx: &Context<'_, S>,
    replicas: &Replicas,
    forwarder: Forwarder,
    (read, write): (usize, usize),
) -> Option<Entrusted> {
    let is_alike = read == 2 && write <= 2 && !replicas.has_absent() && cx.env.is_alive(forwarder.node);
    let place = replicas.index_of(forwarder.node).filter(|_| is_alike)?;
    Some(Entrusted { to: forwarder, place, is_sent: false, told: Told::No })
}

/// The places of the replicas that are to answer with a digest, so that together with this node's place `needed` hold
/// what was read. Replicas that are alive come first, stand-ins, which know few keys, last.
fn asked_for_digests<S: Shell>(cx: &Context<'_, S>, replicas: &Replicas, here: usize, needed: usize) -> u8 {
    let others = || replicas.iter().filter(|&(index, node)| index != here && cx.env.is_alive(node));
    let owners = others().filter(|&(index, _)| !replicas.is_stand_in(index));
    let stand_ins = others().filter(|&(index, _)| replicas.is_stand_in(index));
    owners.chain(stand_ins).take(needed.saturating_sub(1)).fold(0, |mask, (index, _)| mask | bit(index))
}

/// The number a record stands for, `None` if it is no number or the key does not exist.
pub(crate) fn value(record: &Record, now: UnixMillis) -> Option<i64> {
    match record.view(now)? {
        View::Integer(number) => Some(number),
        View::Bytes(bytes) => parse_integer(bytes),
    }
}
