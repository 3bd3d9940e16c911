//! What a connection has chosen for itself: database, protocol, levels, name, reply mode.

pub use gyre_cluster::message::Levels;
use gyre_protocol::Resp;

/// Whether replies are sent (`CLIENT REPLY`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// Every command is answered.
    #[default]
    On,
    /// None is.
    Off,
    /// The reply of the next command is left out; set by `CLIENT REPLY SKIP`.
    SkipNext,
}

/// The state of one connection that its commands read and change.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// `CLIENT ID`: unique on this node, increasing.
    pub id: u64,
    /// The database number of `SELECT`.
    pub db: u8,
    /// RESP2 until `HELLO 3`.
    pub resp: Resp,
    /// Whether the connection may run commands other than AUTH, HELLO, QUIT, RESET.
    pub authenticated: bool,
    /// `CLIENT SETNAME`; empty when unset.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: Vec<u8>,
    /// The levels of its operations.
    pub levels: Levels,
    /// What `READONLY` put aside: the read level to return to on `READWRITE`.
    pub levels_before_readonly: Option<Levels>,
    /// Whether replies are sent.
    pub reply_mode: ReplyMode,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`.
    pub no_touch: bool,
    /// The connection is to be closed once the reply at hand is out (QUIT, a protocol error).
    pub close_after_reply: bool,
}
