//! The settings of a server: one struct, one table of parameters, four sources.
//!
//! A setting has one name everywhere: the flag `--max-clock-drift`, the variable `GYRE_MAX_CLOCK_DRIFT`, the TOML
//! key `max-clock-drift` and the `CONFIG` parameter `max-clock-drift`. A flag wins over a variable, a variable over
//! the file, the file over the default. [`table`] has one row for each; [`load`] merges the sources; [`view`] is
//! what CONFIG GET and SET see; [`rewrite`] is CONFIG REWRITE; [`rules`] are the checks that span settings.

pub mod error;
pub mod load;
#[cfg(test)]
mod reference;
pub mod rewrite;
pub mod rules;
pub mod table;
pub mod value;
pub mod view;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use gyre_cluster::hints::HANDOFF_RATE_DEFAULT;
use gyre_cluster::level::{Consistency, Quorums};
use gyre_cluster::message::Levels;
use gyre_cluster::node::NodeId;
use gyre_cluster::purge::GRACE_DEFAULT;
use gyre_cluster::repair::{INTERVAL_DEFAULT, RATE_DEFAULT};
use gyre_cluster::sweep::SWEEP_INTERVAL_DEFAULT;
use gyre_storage::FsyncPolicy;

pub use error::{ConfigError, Origin};
pub use rules::{peer_bind_address, protected_mode_denies};
pub use value::{ClientMode, HostPort, LogFormat, LogLevel, OutputLimit, OutputLimits, Secret};

/// What is added to the client port to make the peer port when `peer-port` is not given.
pub const PEER_PORT_OFFSET: u16 = 10_000;

/// The settings of one node. Sizes are bytes; times carry their unit in the name.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data lives. Created if missing.
    pub dir: PathBuf,
    /// The address clients connect to.
    pub bind: IpAddr,
    /// The client port.
    pub port: u16,
    /// The address peers connect to, if asked for; [`peer_bind_address`] says which one to use.
    pub peer_bind: Option<IpAddr>,
    /// The peer port. Unless given, `port` + 10,000.
    pub peer_port: u16,
    /// Peer addresses of nodes to find the cluster by; this node's own among them is harmless.
    pub seeds: Vec<HostPort>,
    /// Replicas of each key when this node forms a new cluster; afterwards the topology document decides.
    pub replication_factor: usize,
    /// A fixed node id; drawn at the first start and kept in `dir` when unset.
    pub node_id: Option<NodeId>,
    /// The failure domain of this node; empty when unset.
    pub rack: String,
    /// The host that clients and peers are told to dial (NAT, containers).
    pub announce_host: Option<String>,
    /// The client port that clients are told to dial.
    pub announce_port: Option<u16>,
    /// The peer port that peers are told to dial.
    pub announce_peer_port: Option<u16>,
    /// Nodes of different cluster names never join.
    pub cluster_name: String,
    /// What peers prove to each other; empty when unset.
    pub cluster_secret: Secret,
    /// The clients' password; empty when unset.
    pub requirepass: Secret,
    /// Serve loopback only while there is no password.
    pub protected_mode: bool,
    /// Client connections at most.
    pub maxclients: usize,
    /// Worker threads; at least 1 once loaded.
    pub workers: usize,
    /// Databases of SELECT, 1 to 256.
    pub databases: usize,
    /// When an acknowledged write is on the disk.
    pub appendfsync: FsyncPolicy,
    /// RocksDB's memtable.
    pub memtable_size: usize,
    /// RocksDB's block cache.
    pub block_cache_size: usize,
    /// The cache of newest rows.
    pub row_cache_size: usize,
    /// The longest argument of a request.
    pub proto_max_bulk_len: usize,
    /// Replies a client may leave unread.
    pub client_output_buffer_limit: OutputLimits,
    /// Idle clients are closed after this long; 0 = never.
    pub timeout_seconds: u64,
    /// Seconds between TCP keepalive probes; 0 = none.
    pub tcp_keepalive_seconds: u64,
    /// The read level of a new connection.
    pub read_consistency: Consistency,
    /// The write level of a new connection.
    pub write_consistency: Consistency,
    /// Whether stand-ins count for a new connection.
    pub quorum_mode: Quorums,
    /// How long a node may be down before hints for it are no longer kept.
    pub hint_window_seconds: u64,
    /// Bytes that all hints of this node may take.
    pub max_hint_bytes: usize,
    /// Keys a second that this node hands over to nodes that missed them.
    pub hint_replay_rate: u32,
    /// Seconds between two passes over the keys that have expired.
    pub ttl_sweep_interval_seconds: u64,
    /// Age in seconds at which the record of a deletion may go, once all replicas have agreed that they have it.
    pub tombstone_grace_seconds: u64,
    /// Seconds between two comparisons of what two nodes both keep; 0 = only when asked to, and of marked slots.
    pub anti_entropy_interval_seconds: u64,
    /// Records a second that this node sends and takes in for anti-entropy.
    pub anti_entropy_rate: u32,
    /// Above which phi a silent peer is taken for dead.
    pub phi_threshold: f64,
    /// Milliseconds between two rounds of gossip.
    pub gossip_interval_ms: u64,
    /// What HELLO and INFO say about the mode.
    pub client_mode: ClientMode,
    /// The port of `/metrics` and `/healthz`; `None` = off.
    pub http_port: Option<u16>,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
    /// How far a peer's clock may be ahead.
    pub max_clock_drift_ms: u64,
    /// How long replicas have to answer before the client gets `-TIMEOUT`.
    pub request_timeout_ms: u64,
    /// Ring tokens of this node.
    pub vnodes: usize,
    /// How long the set of fresh nodes must stay the same before they form a ring.
    pub forming_settle_ms: u64,
    /// Commands slower than this many microseconds enter SLOWLOG; 0 = all, negative = none.
    pub slowlog_log_slower_than_micros: i64,
    /// Entries of SLOWLOG.
    pub slowlog_max_len: usize,
    /// Events at least this slow enter LATENCY; 0 = none.
    pub latency_monitor_threshold_ms: u64,
    /// The file given by `--config`, which CONFIG REWRITE writes.
    pub file: Option<PathBuf>,
    /// Parameters that CONFIG SET changed since the start.
    pub changed: BTreeSet<&'static str>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            dir: PathBuf::from("gyre-data"),
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 6379,
            peer_bind: None,
            peer_port: 6379 + PEER_PORT_OFFSET,
            seeds: Vec::new(),
            replication_factor: 3,
            node_id: None,
            rack: String::new(),
            announce_host: None,
            announce_port: None,
            announce_peer_port: None,
            cluster_name: "gyre".into(),
            cluster_secret: Secret::default(),
            requirepass: Secret::default(),
            protected_mode: true,
            maxclients: 10_000,
            workers: 0,
            databases: 16,
            appendfsync: FsyncPolicy::EverySecond,
            memtable_size: 64 << 20,
            block_cache_size: 128 << 20,
            row_cache_size: 384 << 20,
            proto_max_bulk_len: 512 << 20,
            client_output_buffer_limit: OutputLimits::default(),
            timeout_seconds: 0,
            tcp_keepalive_seconds: 300,
            read_consistency: Consistency::Quorum,
            write_consistency: Consistency::Quorum,
            quorum_mode: Quorums::Sloppy,
            hint_window_seconds: 3 * 3600,
            max_hint_bytes: 256 << 20,
            hint_replay_rate: HANDOFF_RATE_DEFAULT,
            anti_entropy_interval_seconds: INTERVAL_DEFAULT.as_secs(),
            anti_entropy_rate: RATE_DEFAULT,
            ttl_sweep_interval_seconds: SWEEP_INTERVAL_DEFAULT.as_secs(),
            tombstone_grace_seconds: GRACE_DEFAULT.as_secs(),
            phi_threshold: 8.0,
            gossip_interval_ms: 1_000,
            client_mode: ClientMode::Standalone,
            http_port: None,
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            max_clock_drift_ms: 500,
            request_timeout_ms: 5_000,
            vnodes: 150,
            forming_settle_ms: 500,
            slowlog_log_slower_than_micros: 10_000,
            slowlog_max_len: 128,
            latency_monitor_threshold_ms: 0,
            file: None,
            changed: BTreeSet::new(),
        }
    }
}

impl Config {
    /// The levels of a new connection.
    pub fn levels(&self) -> Levels {
        Levels { read: self.read_consistency, write: self.write_consistency, quorums: self.quorum_mode }
    }
}
