//! The table of settings: one row each, from which flags, variables, file keys, CONFIG and the help text follow.

use gyre_cluster::gossip::{INTERVAL_MS_MAX, INTERVAL_MS_MIN};
use gyre_cluster::level::{Consistency, Quorums};
use gyre_storage::FsyncPolicy;

use super::value::{ClientMode, HostPort, LogFormat, LogLevel, Secret, address, size, yes_no};
use super::{Config, PEER_PORT_OFFSET};

/// One setting.
pub struct Setting {
    /// Its name in kebab case.
    pub name: &'static str,
    /// What stands for its value in the help text.
    pub value_name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// What its value must be, to follow "it must be".
    pub expected: &'static str,
    /// Whether CONFIG SET may change it while the node runs.
    pub runtime: bool,
    /// Its value as text, in a form that `write` accepts.
    pub read: fn(&Config) -> String,
    /// Sets it from text; `None` if the text is not a value of it.
    pub write: fn(&mut Config, &str) -> Option<()>,
}

impl Setting {
    /// Whether its value must never be logged nor copied from one source to another.
    pub fn is_secret(&self) -> bool {
        matches!(self.name, "requirepass" | "cluster-secret")
    }

    /// The environment variable of this setting.
    pub fn variable(&self) -> String {
        format!("GYRE_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// The setting called `name`, without regard to case.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name))
}

/// A row of [`SETTINGS`]: name, value name, what a value must be, whether CONFIG SET changes it, help, the field as
/// text, and text into the field.
macro_rules! setting {
    ($name:literal $value:literal $expected:literal $when:ident, $help:literal, $read:expr, $write:expr) => {
        Setting {
            name: $name,
            value_name: $value,
            help: $help,
            expected: $expected,
            runtime: setting!(@runtime $when),
            read: $read,
            write: $write,
        }
    };
    (@runtime runtime) => { true };
    (@runtime start) => { false };
}

/// A row whose field is plain: `text => value` is its parser, `value => text` its printer.
macro_rules! plain {
    ($name:literal $value:literal $expected:literal $when:ident, $help:literal, $field:ident,
     $show:expr, $parse:expr) => {
        setting!($name $value $expected $when, $help,
            |config| $show(&config.$field),
            |config, text| { config.$field = $parse(text)?; Some(()) })
    };
}

/// All settings, in the order of the help text.
pub static SETTINGS: &[Setting] = &[
    setting!("dir" "DIR" "a directory" start, "Where the data lives; created if missing",
        |config| config.dir.display().to_string(),
        |config, text| { config.dir = not_empty(text)?.into(); Some(()) }),
    plain!("bind" "ADDR" "an IP address, * or localhost" start,
        "Address for clients; while there is no password only loopback is served (see protected-mode)",
        bind, show, address),
    setting!("port" "PORT" "a port, 1 to 65535" start, "Port for clients",
    |config| config.port.to_string(),
    |config, text| {
        let follows = Some(config.peer_port) == config.port.checked_add(PEER_PORT_OFFSET);
        config.port = port(text)?;
        if follows {
            // 0 means that none fits; `rules::check` then asks for one.
            config.peer_port = config.port.checked_add(PEER_PORT_OFFSET).unwrap_or(0);
        }
        Some(())
    }),
    plain!("peer-port" "PORT" "a port, 1 to 65535" start, "Port for other nodes; port + 10000 unless given",
        peer_port, show, port),
    setting!("peer-bind" "ADDR" "an IP address, * or localhost" start,
        "Address for other nodes: bind with a cluster-secret, loopback without one",
        |config| optional(&config.peer_bind),
        |config, text| { config.peer_bind = or_unset(text, address)?; Some(()) }),
    plain!("seeds" "HOST:PORT,…" "a list of host:port, separated by commas" start,
        "Peer addresses to find the cluster by", seeds, show_list, seeds),
    plain!("replication-factor" "N" "a number from 1 to 7" start,
        "Replicas of each key, fixed when the cluster forms", replication_factor, show,
        |text| whole(text, 1, gyre_cluster::coordinator::REPLICAS_MAX)),
    setting!("node-id" "HEX" "16 hex digits, not all zero, or the 40 that a node shows" start,
        "Fixed node id; drawn at the first start unless given",
        |config| optional(&config.node_id),
        |config, text| { config.node_id = or_unset(text, |text| text.parse().ok())?; Some(()) }),
    plain!("rack" "NAME" "a name without spaces, 64 bytes at most" start,
        "Failure domain; replicas are spread over distinct racks", rack, show, rack),
    setting!("announce-host" "HOST" "a host name or an IP address" start,
        "Host that clients and peers are told to dial",
        |config| optional(&config.announce_host),
        |config, text| { config.announce_host = or_unset(text, host)?; Some(()) }),
    setting!("announce-port" "PORT" "a port, 1 to 65535" start, "Client port that clients are told to dial",
        |config| optional(&config.announce_port),
        |config, text| { config.announce_port = or_unset(text, port)?; Some(()) }),
    setting!("announce-peer-port" "PORT" "a port, 1 to 65535" start, "Peer port that peers are told to dial",
        |config| optional(&config.announce_peer_port),
        |config, text| { config.announce_peer_port = or_unset(text, port)?; Some(()) }),
    plain!("cluster-name" "NAME" "a name without spaces, 1 to 64 bytes" start,
        "Nodes of different cluster names never join", cluster_name, show,
        |text| rack(text).filter(|name| !name.is_empty())),
    plain!("cluster-secret" "SECRET" "a text" start,
        "What nodes prove to each other; required for peers on other machines", cluster_secret, show_secret,
        secret),
    plain!("requirepass" "PASSWORD" "a text" runtime, "Password for clients", requirepass, show_secret, secret),
    plain!("protected-mode" "yes|no" "yes or no" runtime, "Serve loopback only while there is no password",
        protected_mode, show_flag, yes_no),
    plain!("maxclients" "N" "a number from 1 to 1000000" runtime, "Client connections at most", maxclients, show,
        |text| whole(text, 1, 1_000_000)),
    plain!("workers" "N" "a number from 0 (one for each core) to 1024" start,
        "Worker threads; 0 is one for each core", workers, show, |text| whole(text, 0, 1024)),
    plain!("databases" "N" "a number from 1 to 256" start, "Databases of SELECT", databases, show,
        |text| whole(text, 1, 256)),
    plain!("appendfsync" "POLICY" "always, everysec or no" start,
        "When a write is on the disk: always before OK, everysec within a second, no when the system likes",
        appendfsync, show_fsync, fsync),
    plain!("memtable-size" "SIZE" "a size of at least 1mb, such as 64mb" start, "RocksDB's memtable",
        memtable_size, show, |text| size_from(text, 1 << 20)),
    plain!("block-cache-size" "SIZE" "a size of at least 1mb, such as 128mb" start, "RocksDB's block cache",
        block_cache_size, show, |text| size_from(text, 1 << 20)),
    plain!("row-cache-size" "SIZE" "a size such as 256mb; 0 turns the cache off" start,
        "Cache of newest rows, and a sixteenth on top for which keys there are", row_cache_size, show, size),
    plain!("proto-max-bulk-len" "SIZE" "a size from 1mb to 512mb" runtime, "Longest argument of a request",
        proto_max_bulk_len, show,
        |text| size_from(text, 1 << 20).filter(|bytes| *bytes <= 512 << 20)),
    setting!("client-output-buffer-limit" "LIMITS" "class hard-size soft-size soft-seconds, class normal or pubsub"
    runtime, "Unread replies at which a client is closed",
    |config| config.client_output_buffer_limit.to_string(),
    |config, text| {
        config.client_output_buffer_limit = config.client_output_buffer_limit.parse(text)?;
        Some(())
    }),
    plain!("timeout" "SECONDS" "a number of seconds" runtime, "Close idle clients after this long; 0 is never",
        timeout_seconds, show, seconds),
    plain!("tcp-keepalive" "SECONDS" "a number of seconds" runtime, "TCP keepalive of clients; 0 is none",
        tcp_keepalive_seconds, show, seconds),
    plain!("read-consistency" "LEVEL" "one, quorum or all" runtime, "Replicas a read asks, unless a client chooses",
        read_consistency, show_level, level),
    plain!("write-consistency" "LEVEL" "one, quorum or all" runtime,
        "Replicas a write waits for, unless a client chooses", write_consistency, show_level, level),
    plain!("quorum-mode" "MODE" "sloppy or strict" runtime,
        "Whether other nodes stand in for replicas that are down, unless a client chooses", quorum_mode,
        |mode: &Quorums| mode.name().to_ascii_lowercase(), quorums),
    plain!("hint-window" "SECONDS" "a number of seconds" runtime,
        "How long a node may be down before what it misses is no longer kept for it; at most half of tombstone-grace",
        hint_window_seconds, show, seconds),
    plain!("max-hint-bytes" "SIZE" "a size such as 256mb; 0 keeps no hints" runtime,
        "Hints kept for nodes that are down, at most; beyond, anti-entropy must find what they miss", max_hint_bytes,
        show, size),
    plain!("hint-replay-rate" "N" "a number of keys a second from 1 to 1000000" runtime,
        "Keys a second that a node hands over, and that a node which missed them is handed by all", hint_replay_rate, show,
        |text| whole(text, 1, 1_000_000)),
    plain!("ttl-sweep-interval" "SECONDS" "a number of seconds from 1 to 86400" runtime,
        "Time between two passes that free the values of keys which have expired", ttl_sweep_interval_seconds, show,
        |text| whole(text, 1, 86_400)),
    plain!("tombstone-grace" "SECONDS" "a number of seconds from 10 to 315360000" runtime,
        "How old a deletion must be before its record may go, and how long a node may be away; the same on all nodes",
        tombstone_grace_seconds, show, |text| whole(text, 10, 315_360_000)),
    plain!("anti-entropy-interval" "SECONDS" "a number of seconds; 0 is never" runtime,
        "How often two nodes compare what both keep; 0 is only when asked to, and where a hint was dropped",
        anti_entropy_interval_seconds, show, seconds),
    plain!("anti-entropy-rate" "N" "a number of records a second from 1 to 1000000" runtime,
        "Records a second that a node sends and takes in for anti-entropy", anti_entropy_rate, show,
        |text| whole(text, 1, 1_000_000)),
    plain!("phi-threshold" "PHI" "a number from 1 to 64" runtime,
        "Silence at which a peer counts as dead: 2.3 mean gaps between heartbeats for each unit", phi_threshold, show,
        |text: &str| text.parse().ok().filter(|phi| (1.0..=64.0).contains(phi))),
    plain!("gossip-interval" "MS" "a number of milliseconds from 10 to 60000" runtime,
        "Time between two rounds of gossip; the same on all nodes", gossip_interval_ms, show,
        |text| whole(text, INTERVAL_MS_MIN, INTERVAL_MS_MAX)),
    plain!("client-mode" "MODE" "standalone or cluster" runtime,
        "Mode that HELLO and INFO tell; CLUSTER is answered in both", client_mode,
        |mode: &ClientMode| mode.name().to_string(), ClientMode::parse),
    setting!("http-port" "PORT" "a port, 0 to 65535" start, "Port of /metrics and /healthz; 0 is off",
    |config| config.http_port.unwrap_or(0).to_string(),
    |config, text| {
        config.http_port = Some(text.parse().ok()?).filter(|port| *port != 0);
        Some(())
    }),
    plain!("log-level" "LEVEL" "error, warn, info, debug or trace" runtime, "What is logged", log_level,
        |level: &LogLevel| level.name().to_string(), LogLevel::parse),
    plain!("log-format" "FORMAT" "text or json" start, "How it is logged", log_format,
        |format: &LogFormat| format.name().to_string(), LogFormat::parse),
    plain!("max-clock-drift" "MS" "a number of milliseconds from 1 to 3600000" start,
        "How far clocks may differ: a node further off goes by the others', a message from further ahead is refused",
        max_clock_drift_ms, show, |text| whole(text, 1, 3_600_000)),
    plain!("request-timeout-ms" "MS" "a number of milliseconds from 10 to 600000" start,
        "How long replicas have to answer", request_timeout_ms, show, |text| whole(text, 10, 600_000)),
    plain!("vnodes" "N" "a number from 1 to 4096" start, "Ring tokens of this node: its weight", vnodes, show,
        |text| whole(text, 1, 4096)),
    plain!("forming-settle-ms" "MS" "a number of milliseconds from 0 to 600000" start,
        "How long the set of new nodes must stay the same before they form a ring", forming_settle_ms, show,
        |text| whole(text, 0, 600_000)),
    plain!("slowlog-log-slower-than" "MICROS" "a number of microseconds; 0 logs all, -1 none" runtime,
        "Commands at least this slow enter SLOWLOG", slowlog_log_slower_than_micros, show,
        |text: &str| text.parse().ok()),
    plain!("slowlog-max-len" "N" "a number from 0 to 1000000" runtime, "Entries of SLOWLOG", slowlog_max_len, show,
        |text| whole(text, 0, 1_000_000)),
    plain!("latency-monitor-threshold" "MS" "a number of milliseconds; 0 is off" runtime,
        "Events at least this slow enter LATENCY", latency_monitor_threshold_ms, show,
        |text: &str| text.parse().ok()),
];

fn show<T: ToString>(value: &T) -> String {
    value.to_string()
}

fn show_flag(value: &bool) -> String {
    if *value { "yes" } else { "no" }.to_string()
}

fn show_list(seeds: &[HostPort]) -> String {
    seeds.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",")
}

fn show_secret(secret: &Secret) -> String {
    secret.expose().to_string()
}

fn show_level(level: &Consistency) -> String {
    level.name().to_ascii_lowercase()
}

/// The name of a policy, as `appendfsync` takes it.
pub fn show_fsync(policy: &FsyncPolicy) -> String {
    match policy {
        FsyncPolicy::Always => "always",
        FsyncPolicy::EverySecond => "everysec",
        FsyncPolicy::No => "no",
    }
    .to_string()
}

fn optional<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(T::to_string).unwrap_or_default()
}

/// An empty text unsets an optional setting.
fn or_unset<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { parse(text).map(Some) }
}

fn whole<T: std::str::FromStr + PartialOrd>(text: &str, min: T, max: T) -> Option<T> {
    text.parse().ok().filter(|value| (min..=max).contains(value))
}

fn seconds(text: &str) -> Option<u64> {
    whole(text, 0, u64::from(u32::MAX))
}

fn size_from(text: &str, min: usize) -> Option<usize> {
    size(text).filter(|bytes| *bytes >= min)
}

fn port(text: &str) -> Option<u16> {
    whole(text, 1, u16::MAX)
}

fn not_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text))
}

fn rack(text: &str) -> Option<String> {
    let plain = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| text.to_string())
}

fn host(text: &str) -> Option<String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Some(text.to_string());
    }
    let with_port = HostPort::parse(text, 1)?;
    (with_port.host == text).then(|| text.to_string())
}

fn seeds(text: &str) -> Option<Vec<HostPort>> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| HostPort::parse(word, Config::default().peer_port)).collect()
}

fn level(text: &str) -> Option<Consistency> {
    let levels = [Consistency::One, Consistency::Quorum, Consistency::All];
    levels.into_iter().find(|level| text.eq_ignore_ascii_case(level.name()))
}

fn quorums(text: &str) -> Option<Quorums> {
    let modes = [Quorums::Sloppy, Quorums::Strict];
    modes.into_iter().find(|mode| text.eq_ignore_ascii_case(mode.name()))
}

fn fsync(text: &str) -> Option<FsyncPolicy> {
    match text.to_ascii_lowercase().as_str() {
        "always" => Some(FsyncPolicy::Always),
        "everysec" => Some(FsyncPolicy::EverySecond),
        "no" => Some(FsyncPolicy::No),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One value a setting takes and two it refuses.
    const EXAMPLES: &[(&str, &str, [&str; 2])] = &[
        ("dir", "/var/lib/gyre", ["", ""]),
        ("bind", "10.0.0.1", ["host", "10.0.0"]),
        ("port", "7000", ["0", "65536"]),
        ("peer-port", "17000", ["0", "x"]),
        ("peer-bind", "10.0.0.1", ["host", "1"]),
        ("seeds", "a:1,b:16379,[::1]:2", ["a:0", "a:1,,b:x"]),
        ("replication-factor", "5", ["0", "16"]),
        ("node-id", "000000000000001f", ["0000000000000000", "xyz"]),
        ("rack", "rack-1", ["a b", "\n"]),
        ("announce-host", "db.example.org", ["a b", "a:1"]),
        ("announce-port", "1", ["0", "-1"]),
        ("announce-peer-port", "1", ["0", "-1"]),
        ("cluster-name", "production", ["", "a b"]),
        ("cluster-secret", "s3cret", ["", ""]),
        ("requirepass", "hunter2", ["", ""]),
        ("protected-mode", "no", ["maybe", ""]),
        ("maxclients", "100", ["0", "x"]),
        ("workers", "4", ["-1", "1025"]),
        ("databases", "1", ["0", "257"]),
        ("appendfsync", "always", ["sometimes", ""]),
        ("memtable-size", "1048576", ["1kb", "1tb"]),
        ("block-cache-size", "1048576", ["0", "x"]),
        ("row-cache-size", "0", ["-1", "x"]),
        ("proto-max-bulk-len", "1048576", ["1kb", "513mb"]),
        ("client-output-buffer-limit", "normal 1 2 3 slave 0 0 0 pubsub 4 5 6", ["normal", ""]),
        ("timeout", "30", ["-1", "x"]),
        ("tcp-keepalive", "0", ["-1", "x"]),
        ("read-consistency", "one", ["two", ""]),
        ("write-consistency", "all", ["two", ""]),
        ("quorum-mode", "strict", ["loose", ""]),
        ("hint-window", "60", ["-1", "x"]),
        ("max-hint-bytes", "1048576", ["-1", "x"]),
        ("hint-replay-rate", "10", ["0", "1000001"]),
        ("ttl-sweep-interval", "1", ["0", "86401"]),
        ("tombstone-grace", "3600", ["9", "315360001"]),
        ("anti-entropy-interval", "0", ["-1", "x"]),
        ("anti-entropy-rate", "10", ["0", "1000001"]),
        ("phi-threshold", "12.5", ["0.5", "NaN"]),
        ("gossip-interval", "500", ["9", "60001"]),
        ("client-mode", "cluster", ["sentinel", ""]),
        ("http-port", "9121", ["65536", "x"]),
        ("log-level", "debug", ["loud", ""]),
        ("log-format", "json", ["xml", ""]),
        ("max-clock-drift", "1000", ["0", "3600001"]),
        ("request-timeout-ms", "10", ["9", "600001"]),
        ("vnodes", "1", ["0", "4097"]),
        ("forming-settle-ms", "0", ["-1", "600001"]),
        ("slowlog-log-slower-than", "-1", ["x", "1.5"]),
        ("slowlog-max-len", "0", ["-1", "1000001"]),
        ("latency-monitor-threshold", "100", ["-1", "x"]),
    ];

    #[test]
    fn every_setting_takes_its_kind_of_value_and_refuses_others() {
        let named: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        let examples: Vec<&str> = EXAMPLES.iter().map(|example| example.0).collect();
        assert_eq!(named, examples, "one example for each setting");
        for (setting, (name, good, bad)) in SETTINGS.iter().zip(EXAMPLES) {
            let mut config = Config::default();
            assert_eq!((setting.write)(&mut config, good), Some(()), "{name} {good}");
            let shown = (setting.read)(&config);
            // A node id is shown with 24 more digits.
            assert!(
                shown == *good || (*name == "node-id" && shown.starts_with(good)),
                "{name} reads {shown}"
            );
            let refusals = bad.iter().filter(|text| !(text.is_empty() && setting.is_secret()));
            for text in refusals {
                assert_eq!((setting.write)(&mut config, text), None, "{name} '{text}'");
                assert_eq!((setting.read)(&config), shown, "a refused value changes nothing");
            }
        }
    }

    #[test]
    fn every_default_is_a_value_of_its_setting() {
        for setting in SETTINGS {
            let mut config = Config::default();
            let text = (setting.read)(&config);
            assert_eq!((setting.write)(&mut config, &text), Some(()), "{} '{text}'", setting.name);
            assert_eq!((setting.read)(&config), text, "{}", setting.name);
        }
    }

    #[test]
    fn names_are_distinct_kebab_case() {
        let names: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        assert_eq!(find("max-clock-drift").unwrap().variable(), "GYRE_MAX_CLOCK_DRIFT");
        assert!(find("MAXCLIENTS").is_some() && find("maxclient").is_none());
    }

    #[test]
    fn the_peer_port_follows_the_port_unless_given() {
        let set = |config: &mut Config, name: &str, text: &str| (find(name).unwrap().write)(config, text);
        let mut config = Config::default();
        set(&mut config, "port", "7001");
        assert_eq!(config.peer_port, 17001);
        set(&mut config, "peer-port", "9000");
        set(&mut config, "port", "7002");
        assert_eq!(config.peer_port, 9000);
    }
}
