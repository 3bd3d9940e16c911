//! The kinds of value a setting has, from text and back.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use subtle::ConstantTimeEq;

/// A password: compared in constant time and never shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `given` is this secret. Takes as long for a wrong one of the same length.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Secret(unset)" } else { "Secret(hidden)" })
    }
}

/// A host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl HostPort {
    /// `host`, `host:port`, `[v6]` or `[v6]:port`; without a port it is `default_port`.
    pub fn parse(text: &str, default_port: u16) -> Option<HostPort> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let named = !host.is_empty() && host.len() <= 255 && host.bytes().all(plain);
        let is_host = named || text.starts_with('[');
        (is_host && port != 0).then(|| HostPort { host: host.into(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// How much a client may leave unread before it is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Bytes at which it is closed at once; 0 = no limit.
    pub hard_bytes: usize,
    /// Bytes it may not stay above for `soft_seconds`; 0 = no limit.
    pub soft_bytes: usize,
    /// See `soft_bytes`.
    pub soft_seconds: u64,
}

/// The output limits by class of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Clients that send commands.
    pub normal: OutputLimit,
    /// Clients with subscriptions.
    pub pubsub: OutputLimit,
}

impl Default for OutputLimits {
    /// Redis leaves normal clients unlimited; here 1 GiB bounds them, twice the longest value.
    fn default() -> Self {
        OutputLimits {
            normal: OutputLimit { hard_bytes: 1 << 30, soft_bytes: 0, soft_seconds: 0 },
            pubsub: OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 },
        }
    }
}

impl OutputLimits {
    /// `class hard soft seconds`, repeated; classes that are not named keep what they have. The class of Redis's
    /// replicas is accepted and ignored, since nothing here is one.
    pub fn parse(self, text: &str) -> Option<OutputLimits> {
        let mut limits = self;
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() {
            return None;
        }
        for group in words.chunks(4) {
            let [class, hard, soft, seconds] = group else { return None };
            let limit = OutputLimit {
                hard_bytes: size(hard)?,
                soft_bytes: size(soft)?,
                soft_seconds: seconds.parse().ok()?,
            };
            match class.to_ascii_lowercase().as_str() {
                "normal" => limits.normal = limit,
                "pubsub" => limits.pubsub = limit,
                "slave" | "replica" => {}
                _ => return None,
            }
        }
        Some(limits)
    }
}

impl fmt::Display for OutputLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, p) = (self.normal, self.pubsub);
        write!(f, "normal {} {} {} ", n.hard_bytes, n.soft_bytes, n.soft_seconds)?;
        write!(f, "slave 0 0 0 pubsub {} {} {}", p.hard_bytes, p.soft_bytes, p.soft_seconds)
    }
}

/// What HELLO and INFO tell clients about the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMode {
    /// `redis_mode:standalone`, `cluster_enabled:0`: plain drivers stay plain.
    Standalone,
    /// `redis_mode:cluster`, `cluster_enabled:1`.
    Cluster,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// What an operator should look at.
    Warn,
    /// Life of the node.
    Info,
    /// What happens to connections and requests.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Gives an enum its names, which parse without regard to case.
macro_rules! named {
    ($($kind:ident { $($variant:ident = $name:literal),+ $(,)? })+) => {$(
        impl $kind {
            /// The variant of this name.
            pub fn parse(text: &str) -> Option<$kind> {
                $(if text.eq_ignore_ascii_case($name) { return Some($kind::$variant); })+
                None
            }

            /// The name of the variant.
            pub const fn name(self) -> &'static str {
                match self { $($kind::$variant => $name),+ }
            }
        }
    )+};
}

named! {
    ClientMode { Standalone = "standalone", Cluster = "cluster" }
    LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
    LogFormat { Text = "text", Json = "json" }
}

/// A size in Redis's units: `1k` is 1,000 bytes, `1kb` is 1,024, likewise `m`, `mb`, `g`, `gb`; any case.
pub fn size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: usize = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// `yes` or `no`; also `true` or `false`, as TOML writes it.
pub fn yes_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// An address to bind: an IP address, `*` for all, or `localhost`.
pub fn address(text: &str) -> Option<IpAddr> {
    match text {
        "*" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_redis_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("5b", 5),
            ("1k", 1000),
            ("1kb", 1024),
            ("64mb", 64 << 20),
            ("64MB", 64 << 20),
            ("3m", 3_000_000),
            ("2g", 2_000_000_000),
            ("1gb", 1 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "mb", "1tb", "-1", "1 mb", "1.5gb", "99999999999999999999", "99999999999999gb"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn hosts_carry_an_optional_port() {
        let parse = |text| HostPort::parse(text, 16379).map(|address| address.to_string());
        assert_eq!(parse("node-1:7000").as_deref(), Some("node-1:7000"));
        assert_eq!(parse("10.0.0.1").as_deref(), Some("10.0.0.1:16379"));
        assert_eq!(parse("[::1]:7000").as_deref(), Some("[::1]:7000"));
        assert_eq!(parse("[::1]").as_deref(), Some("[::1]:16379"));
        for text in
            ["", ":1", "host:", "host:0", "host:65536", "a b:1", "[::1]7", "[zz]:1", "::1", "http://a:1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn output_limits_change_only_the_classes_named() {
        let limits = OutputLimits::default();
        let changed = limits.parse("pubsub 1mb 1k 5").unwrap();
        assert_eq!(changed.normal, limits.normal);
        assert_eq!(changed.pubsub, OutputLimit { hard_bytes: 1 << 20, soft_bytes: 1000, soft_seconds: 5 });
        assert_eq!(limits.parse(&changed.to_string()), Some(changed));
        for text in ["", "normal 1 2", "other 1 2 3", "normal x 0 0", "normal 0 0 0 pubsub"] {
            assert_eq!(limits.parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_matches_itself_only_and_never_shows() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches(b"hunter2"));
        assert!(!secret.matches(b"hunter3") && !secret.matches(b"hunter22") && !secret.matches(b""));
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
    }
}
