//! One member as this node sees it: its heartbeat, its entries, and whether it lives.

use super::about::{self, About};
use super::api::{Cause, GossipSettings, Liveness, PeerView};
use super::entry::Entries;
use super::message::{Delta, Digest};
use super::phi::Arrivals;
use crate::node::NodeId;
use crate::time::MonoMicros;

/// A sign of life, made by the node itself once a round. Later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heartbeat {
    /// The node's incarnation.
    pub incarnation: u64,
    /// Counts the rounds of that incarnation.
    pub counter: u64,
}

/// Time as the judgement of peers needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Now.
    pub(super) now: MonoMicros,
    /// When this process came back from its last pause, or started.
    pub(super) resumed_at: MonoMicros,
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    /// The default until anything is heard.
    pub(super) heartbeat: Heartbeat,
    /// Of the heartbeat's incarnation.
    pub(super) entries: Entries,
    arrivals: Arrivals,
    pub(super) liveness: Liveness,
    /// It is not up, and one newer heartbeat has arrived through others: the next brings it up.
    is_stirring: bool,
}

impl Peer {
    /// A member of which nothing is known.
    pub(super) fn unheard(id: NodeId) -> Peer {
        Peer {
            id,
            heartbeat: Heartbeat::default(),
            entries: Entries::default(),
            arrivals: Arrivals::first(MonoMicros(0), 0),
            liveness: Liveness::Unknown,
            is_stirring: false,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest { id: self.id, heartbeat: self.heartbeat, version: self.entries.version() }
    }

    /// How far its entries are known.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.heartbeat.incarnation, self.entries.version())
    }

    /// Takes a heartbeat in that came from the member itself (`is_direct`) or through others. Answers whether that
    /// brings it up.
    ///
    /// A heartbeat through others is news to this node, but may be old: the last of a member that died while this node
    /// was down or cut off. So it takes a second one to bring a member up that is not.
    pub(super) fn beat(
        &mut self,
        at: Moment,
        settings: &GossipSettings,
        heartbeat: Heartbeat,
        is_direct: bool,
    ) -> bool {
        if heartbeat < self.heartbeat || (heartbeat == self.heartbeat && !is_direct) {
            return false;
        }
        if heartbeat.incarnation > self.heartbeat.incarnation {
            self.entries = Entries::default();
            self.arrivals = Arrivals::first(at.now, settings.interval_ms);
        } else if heartbeat > self.heartbeat {
            // A gap that this node's own pause, or the member's being down, is part of is no sample.
            let is_gap = self.liveness == Liveness::Up && self.arrivals.arrived_at() >= at.resumed_at;
            self.arrivals.heartbeat(at.now, settings.interval_ms, is_gap);
        } else {
            self.arrivals.evidence(at.now);
            if !self.is_stirring {
                return false;
            }
        }
        self.heartbeat = heartbeat;
        if self.liveness == Liveness::Up || self.out_of_service().is_some() {
            return false;
        }
        let is_up = is_direct || self.is_stirring;
        self.is_stirring = !is_up;
        if is_up {
            self.liveness = Liveness::Up;
        }
        is_up
    }

    /// Takes entries in. Answers whether any is news.
    pub(super) fn learn(&mut self, delta: &Delta) -> bool {
        // What is missing in between would count as known: then nothing is taken, and the next exchange brings all.
        let fits = delta.incarnation == self.heartbeat.incarnation && delta.after <= self.entries.version();
        fits && self.entries.merge(&delta.entries)
    }

    /// Direct evidence that it lives.
    pub(super) fn evidence(&mut self, now: MonoMicros) {
        self.arrivals.evidence(now);
    }

    /// Why it serves nobody, in its own words.
    fn out_of_service(&self) -> Option<Cause> {
        if about::is_stopping(&self.entries) {
            return Some(Cause::Stopping);
        }
        about::has_failed(&self.entries).then_some(Cause::Failed)
    }

    /// Goes down if it is up and says that it serves nobody.
    pub(super) fn stop(&mut self) -> Option<Cause> {
        let cause = self.out_of_service().filter(|_| self.liveness == Liveness::Up)?;
        self.liveness = Liveness::Down;
        Some(cause)
    }

    /// Goes down if it is up and has been silent for too long.
    pub(super) fn judge(&mut self, at: Moment, settings: &GossipSettings) -> Option<Cause> {
        if self.liveness != Liveness::Up && !self.is_stirring {
            return None;
        }
        let phi = self.arrivals.phi(at.now, at.resumed_at, settings.interval_ms);
        if phi <= settings.phi_threshold {
            return None;
        }
        self.is_stirring = false;
        if self.liveness != Liveness::Up {
            return None;
        }
        self.liveness = Liveness::Down;
        Some(Cause::Silence { phi })
    }

    pub(super) fn phi(&self, at: Moment, settings: &GossipSettings) -> Option<f64> {
        let is_heard = self.heartbeat != Heartbeat::default();
        is_heard.then(|| self.arrivals.phi(at.now, at.resumed_at, settings.interval_ms))
    }

    pub(super) fn view(&self, at: Moment, settings: &GossipSettings) -> PeerView {
        PeerView {
            id: self.id,
            liveness: self.liveness,
            phi: self.phi(at, settings),
            heartbeat: self.heartbeat,
            version: self.entries.version(),
            about: About::of(&self.entries),
        }
    }
}
