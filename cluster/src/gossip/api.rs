//! What goes into gossip, and what comes out.

use super::about::About;
use super::message::GossipMessage;
use super::peer::Heartbeat;
use crate::node::NodeId;

/// The longest gossip interval, in milliseconds.
pub const INTERVAL_MS_MAX: u64 = 60_000;
/// The shortest gossip interval, in milliseconds.
pub const INTERVAL_MS_MIN: u64 = 10;
/// The most peers a round may begin an exchange with, but for one that is down and one seed.
pub const FAN_OUT_MAX: usize = 16;

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GossipSettings {
    /// The time between two rounds, in milliseconds; brought between [`INTERVAL_MS_MIN`] and [`INTERVAL_MS_MAX`].
    /// The same on all nodes.
    pub interval_ms: u64,
    /// With how many random live peers a round begins an exchange, 1 to [`FAN_OUT_MAX`].
    pub fan_out: usize,
    /// Above which phi a silent peer is down; a silence of 2.3 mean gaps for each unit.
    pub phi_threshold: f64,
}

impl Default for GossipSettings {
    fn default() -> GossipSettings {
        GossipSettings { interval_ms: 1_000, fan_out: 3, phi_threshold: 8.0 }
    }
}

impl GossipSettings {
    /// The settings, brought into their bounds.
    pub(super) fn bounded(self) -> GossipSettings {
        GossipSettings {
            interval_ms: self.interval_ms.clamp(INTERVAL_MS_MIN, INTERVAL_MS_MAX),
            fan_out: self.fan_out.clamp(1, FAN_OUT_MAX),
            ..self
        }
    }
}

/// What a node knows when it begins to gossip.
#[derive(Clone, Debug)]
pub struct GossipOptions {
    /// The node itself.
    pub id: NodeId,
    /// Its incarnation: greater with each start of its process.
    pub incarnation: u64,
    /// What it says of itself.
    pub about: About,
    /// What the operator has set.
    pub settings: GossipSettings,
    /// Random bits, which pick peers.
    pub random: u64,
}

/// Something for the shell to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to a peer, or drop it if there is no link.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: GossipMessage,
    },
    /// The peer counts as up from now on.
    Up {
        /// The peer.
        peer: NodeId,
    },
    /// The peer, up so far, counts as down from now on.
    Down {
        /// The peer.
        peer: NodeId,
        /// Why.
        cause: Cause,
    },
    /// The peer has another topology document and none of a later epoch: send it this node's.
    SendTopology {
        /// To whom.
        to: NodeId,
    },
    /// Peers know a later incarnation of this very node: two processes run under one id, or its data directory is an
    /// old copy. They do not listen to this one. Given once for each later incarnation.
    Superseded {
        /// The later incarnation.
        incarnation: u64,
    },
}

/// Why a peer is down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// It has been silent for too long.
    Silence {
        /// Its phi, above the threshold.
        phi: f64,
    },
    /// It says that it is about to stop.
    Stopping,
    /// It says that its store has failed.
    Failed,
}

/// Whether a peer lives, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing has shown yet, since this node began, that the peer lives. Counts as down.
    Unknown,
    /// It is heard.
    Up,
    /// It was up, and is silent or has said that it stops.
    Down,
}

/// What this node knows of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// The peer.
    pub id: NodeId,
    /// Whether it lives.
    pub liveness: Liveness,
    /// How suspicious its silence is; `None` before its first heartbeat.
    pub phi: Option<f64>,
    /// Its last heartbeat; the default before the first.
    pub heartbeat: Heartbeat,
    /// The greatest version of its entries that has arrived.
    pub version: u64,
    /// What it says of itself; `None` until that has arrived.
    pub about: Option<About>,
}
