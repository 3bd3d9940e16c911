//! `gyre status`, `gyre ring` and `gyre hints`: what a node answers to `GYRE STATUS`, `GYRE RING` and `GYRE HINTS`, as
//! tables or JSON; [`repair`] is `gyre repair`.

use std::io::{self, Write};
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, Value};
use serde_json::{Map, Value as Json};

pub mod repair;

/// How long connecting and each answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The node to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its host.
    pub host: String,
    /// Its client port.
    pub port: u16,
    /// The clients' password, if there is one.
    pub password: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The node cannot be reached, or refuses.
    #[error("{host}:{port}: {reason}")]
    Node {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What went wrong.
        reason: String,
    },
    /// Standard output takes nothing.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

impl Target {
    /// A connection to the node, in RESP3.
    pub fn connect(&self) -> Result<redis::Connection, StatusError> {
        let mut settings =
            RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        if let Some(password) = &self.password {
            settings = settings.set_password(password.as_str());
        }
        let connect = || {
            let address = ConnectionAddr::Tcp(self.host.clone(), self.port);
            let info = address.into_connection_info()?.set_redis_settings(settings);
            let connection = redis::Client::open(info)?.get_connection_with_timeout(TIMEOUT)?;
            connection.set_read_timeout(Some(TIMEOUT))?;
            connection.set_write_timeout(Some(TIMEOUT))?;
            Ok(connection)
        };
        connect().map_err(|error| self.error(&error))
    }

    /// What the node answers to one command.
    pub fn ask(&self, words: &[&str]) -> Result<Value, StatusError> {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut self.connect()?).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &redis::RedisError) -> StatusError {
        StatusError::Node { host: self.host.clone(), port: self.port, reason: error.to_string() }
    }
}

/// Prints the nodes of the cluster.
pub fn status(target: &Target, as_json: bool) -> Result<(), StatusError> {
    print(&json(&target.ask(&["GYRE", "STATUS"])?), as_json, status_text)
}

/// Prints who keeps which slots.
pub fn ring(target: &Target, as_json: bool) -> Result<(), StatusError> {
    print(&json(&target.ask(&["GYRE", "RING"])?), as_json, ring_text)
}

/// Prints what a node keeps for nodes that missed it.
pub fn hints(target: &Target, as_json: bool) -> Result<(), StatusError> {
    print(&json(&target.ask(&["GYRE", "HINTS"])?), as_json, hints_text)
}

fn print(answer: &Json, as_json: bool, text: fn(&Json) -> String) -> Result<(), StatusError> {
    let text = if as_json { format!("{answer:#}\n") } else { text(answer) };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // `gyre ring | head`
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// A reply as JSON: maps become objects, byte strings texts.
fn json(value: &Value) -> Json {
    match value {
        Value::Int(number) => Json::from(*number),
        Value::Double(number) => Json::from(*number),
        Value::Boolean(flag) => Json::from(*flag),
        Value::BulkString(bytes) => Json::from(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Json::from(text.as_str()),
        Value::Okay => Json::from("OK"),
        Value::Array(items) | Value::Set(items) => items.iter().map(json).collect(),
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| (plain(&json(key)), json(value)));
            Json::Object(pairs.collect::<Map<String, Json>>())
        }
        _ => Json::Null,
    }
}

/// A JSON value without quotes, for tables and keys.
fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => "-".into(),
        Json::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn field(object: &Json, name: &str) -> String {
    object.get(name).map(plain).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into())
}

fn status_text(status: &Json) -> String {
    let mut text = format!("Cluster  {} ({})\n", field(status, "cluster-name"), field(status, "cluster-id"));
    let (state, epoch, factor) =
        (field(status, "state"), field(status, "epoch"), field(status, "replication-factor"));
    text += &format!("State    {state}, epoch {epoch}, replication factor {factor}\n");
    text += &format!("Asked    node {}, up {} s\n", field(status, "node"), field(status, "uptime-seconds"));
    let oldest = field(status, "oldest-unverified-seconds");
    text += &format!("Compared with the other replicas: all slots within the last {oldest} s\n");
    text += &purging_text(status);
    let warnings = status.get("warnings").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    text += &warnings.iter().map(|warning| format!("WARNING  {}\n", plain(warning))).collect::<String>();
    text.push('\n');
    let header = [
        "",
        "ADDRESS",
        "PEER ADDRESS",
        "RACK",
        "VNODES",
        "PRIMARY",
        "OWNS",
        "PHI",
        "SKEW ms",
        "QUEUED",
        "VERSION",
        "NODE",
    ];
    let nodes = status.get("nodes").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows = nodes.iter().map(|node| {
        [
            mark(node),
            field(node, "address"),
            field(node, "peer-address"),
            field(node, "rack"),
            field(node, "vnodes"),
            percent(node, "primary-share"),
            percent(node, "replica-share"),
            one_decimal(node, "phi"),
            one_decimal(node, "clock-skew-ms"),
            field(node, "queued-bytes"),
            field(node, "version"),
            field(node, "id"),
        ]
    });
    text += &table(&header, rows);
    text += "\nU up, D down; N normal, J joining, L left, F its store has failed. PRIMARY, OWNS: share of the slots a node leads, and keeps.
PHI: how suspicious its silence is (phi-threshold is dead). SKEW: how far its wall clock is ahead of the asked node's.\n";
    text
}

/// One line on what has become of deletions.
fn purging_text(status: &Json) -> String {
    let grace = field(status, "tombstone-grace-seconds");
    let horizon = match status.get("purge-horizon-seconds").and_then(Json::as_u64) {
        Some(seconds) => format!("gone if older than {seconds} s"),
        None => "none is gone yet".into(),
    };
    let held_up = match field(status, "purge-held-up-by").as_str() {
        "-" => String::new(),
        nodes => format!("; held up by {nodes}"),
    };
    format!("Records of deletions: {horizon} (tombstone-grace {grace} s){held_up}\n")
}

/// Two letters as nodetool prints them: up or down, and what the node does.
fn mark(node: &Json) -> String {
    let up = if node.get("up").and_then(Json::as_bool) == Some(true) { 'U' } else { 'D' };
    if field(node, "health") == "failed" {
        return format!("{up}F");
    }
    let state = match field(node, "state").as_str() {
        "active" => 'N',
        "joining" => 'J',
        _ => 'L',
    };
    format!("{up}{state}")
}

fn one_decimal(node: &Json, name: &str) -> String {
    node.get(name).and_then(Json::as_f64).map_or_else(|| "-".into(), |number| format!("{number:.1}"))
}

fn percent(node: &Json, name: &str) -> String {
    let share = node.get(name).and_then(Json::as_f64);
    share.map_or_else(|| "-".into(), |share| format!("{:.1}%", share * 100.0))
}

fn ring_text(ring: &Json) -> String {
    let ranges = ring.get("ranges").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows = ranges.iter().map(|range| {
        let replicas = range.get("replicas").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let addresses: Vec<String> = replicas.iter().map(|replica| field(replica, "address")).collect();
        let (first, last) = (field(range, "first-slot"), field(range, "last-slot"));
        [
            first,
            last,
            addresses.first().cloned().unwrap_or_default(),
            addresses.get(1..).unwrap_or_default().join(" "),
        ]
    });
    let factor = field(ring, "replication-factor");
    let mut text = format!("Epoch {}, replication factor {factor}, ", field(ring, "epoch"));
    text += &format!("{} ranges of equal replicas\n\n", ranges.len());
    text += &table(&["FIRST", "LAST", "PRIMARY", "OTHER REPLICAS"], rows);
    text
}

fn hints_text(hints: &Json) -> String {
    let (node, bytes, max) = (field(hints, "node"), field(hints, "bytes"), field(hints, "max-bytes"));
    let mut text = format!("Node     {node}, {bytes} bytes of {max}\n");
    let count = |name| field(hints, name);
    text += &format!(
        "Hints    {} kept, {} replayed, {} dropped, {} expired; {} keys forgotten since the start\n\n",
        count("kept"),
        count("replayed"),
        count("dropped"),
        count("expired"),
        count("forgotten")
    );
    let targets = hints.get("targets").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if targets.is_empty() {
        return text + "No node misses anything that this one knows of.\n";
    }
    let header = ["", "ADDRESS", "KEYS", "BYTES", "OLDEST s", "KEYS/s", "REPLAYED", "FAILURES", "NODE"];
    let rows = targets.iter().map(|target| {
        let is_up = target.get("up").and_then(Json::as_bool) == Some(true);
        let names =
            ["address", "keys", "bytes", "oldest-seconds", "keys-per-second", "replayed", "failures", "id"];
        let [address, keys, bytes, oldest, rate, replayed, failures, id] =
            names.map(|name| field(target, name));
        let mark = if is_up { "U" } else { "D" }.to_string();
        [mark, address, keys, bytes, oldest, rate, replayed, failures, id]
    });
    text + &table(&header, rows) + "\nU up and being served, D down.\n"
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(header: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut lines: Vec<[String; N]> = vec![header.map(str::to_string)];
    lines.extend(rows);
    let mut widths = [0_usize; N];
    for line in &lines {
        widths.iter_mut().zip(line).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn map(pairs: &[(&str, Value)]) -> Value {
        Value::Map(pairs.iter().map(|(key, value)| (bulk(key), value.clone())).collect())
    }

    fn node(address: &str, up: bool, state: &str) -> Value {
        map(&[
            ("id", bulk("00ab")),
            ("address", bulk(address)),
            ("up", Value::Boolean(up)),
            ("state", bulk(state)),
            ("rack", Value::Nil),
            ("primary-share", Value::Double(0.3333)),
        ])
    }

    #[test]
    fn the_status_shows_a_line_for_each_node() {
        let nodes = Value::Array(vec![
            node("127.0.0.1:6379", true, "active"),
            node("127.0.0.1:6380", false, "active"),
            node("127.0.0.1:6381", true, "joining"),
        ]);
        let warnings = Value::Array(vec![bulk("the wall clock is wrong")]);
        let held_up = Value::Array(vec![bulk("127.0.0.1:6380")]);
        let status = map(&[
            ("cluster-name", bulk("gyre")),
            ("warnings", warnings),
            ("nodes", nodes),
            ("purge-horizon-seconds", Value::Int(400_000)),
            ("purge-held-up-by", held_up),
            ("tombstone-grace-seconds", Value::Int(259_200)),
        ]);
        let text = status_text(&json(&status));
        let line = "Records of deletions: gone if older than 400000 s (tombstone-grace 259200 s); held up by 127.0.0.1:6380";
        assert!(text.lines().any(|have| have == line), "{text}");
        assert!(text.contains("\nWARNING  the wall clock is wrong\n"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("Cluster  gyre"), "{text}");
        assert!(
            lines.iter().any(|line| line.starts_with("UN  127.0.0.1:6379") && line.contains("33.3%")),
            "{text}"
        );
        assert!(lines.iter().any(|line| line.starts_with("DN  127.0.0.1:6380")), "{text}");
        assert!(lines.iter().any(|line| line.starts_with("UJ  127.0.0.1:6381")), "{text}");
    }

    #[test]
    fn the_ring_shows_a_line_for_each_range() {
        let replica = |address: &str| map(&[("address", bulk(address))]);
        let range = map(&[
            ("first-slot", Value::Int(0)),
            ("last-slot", Value::Int(99)),
            ("replicas", Value::Array(vec![replica("a:1"), replica("b:2"), replica("c:3")])),
        ]);
        let text = ring_text(&json(&map(&[("epoch", Value::Int(1)), ("ranges", Value::Array(vec![range]))])));
        assert!(text.lines().any(|line| line == "0      99    a:1      b:2 c:3"), "{text}");
    }

    #[test]
    fn the_hints_show_a_line_for_each_target() {
        let target = map(&[
            ("id", bulk("00ab")),
            ("address", bulk("a:1")),
            ("up", Value::Boolean(true)),
            ("keys", Value::Int(12)),
            ("bytes", Value::Int(900)),
            ("oldest-seconds", Value::Int(61)),
            ("keys-per-second", Value::Int(2_000)),
            ("replayed", Value::Int(77)),
            ("failures", Value::Int(0)),
        ]);
        let some = map(&[("bytes", Value::Int(900)), ("targets", Value::Array(vec![target]))]);
        let text = hints_text(&json(&some));
        let words: Vec<&str> =
            text.lines().find(|line| line.starts_with('U')).unwrap().split_whitespace().collect();
        assert_eq!(words, ["U", "a:1", "12", "900", "61", "2000", "77", "0", "00ab"]);
        let none = hints_text(&json(&map(&[("targets", Value::Array(Vec::new()))])));
        assert!(none.contains("No node misses anything"), "{none}");
    }

    #[test]
    fn replies_become_json_of_the_same_shape() {
        let value = map(&[("n", Value::Int(1)), ("list", Value::Array(vec![bulk("x"), Value::Nil]))]);
        assert_eq!(json(&value).to_string(), r#"{"list":["x",null],"n":1}"#);
    }

    #[test]
    fn a_node_that_is_not_there_is_named() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let target = Target { host: "127.0.0.1".into(), port, password: None };
        let error = target.ask(&["GYRE", "STATUS"]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("127.0.0.1:{port}: ")), "{error}");
    }
}
