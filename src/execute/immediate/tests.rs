//! Immediate commands as a client sends them, on a node whose cluster has not formed.

use std::sync::Arc;

use gyre_protocol::{OwnedArgs, Writer, resolve};
use gyre_storage::Store;

use super::*;
use crate::config::Config;
use crate::execute::immediate::fixtures::{connect, settings};
use crate::session::settings::SessionSettings;
use crate::worker::mailbox::mailbox;

/// A node without cluster and one connection to it, from 10.0.0.1:5000 to 10.0.0.2:6379.
struct Client {
    node: Node,
    entry: Arc<ClientEntry>,
    settings: SessionSettings,
}

impl Client {
    fn new() -> Client {
        let config = Config { workers: 1, ..Config::default() };
        let node = Node::new(config, Store::in_memory(), vec![mailbox().0]).unwrap();
        let settings = settings();
        let entry = connect(&node.clients, settings.clone(), 5000);
        Client { node, entry, settings }
    }

    /// The reply to a line of words, which resolves to an immediate command or not at all.
    fn send(&mut self, line: &str) -> Reply {
        let args: OwnedArgs = line.split_whitespace().collect();
        let command = match resolve(args.args()) {
            Ok(command) => command,
            Err(refusal) => return refusals::explain(args.args()).unwrap_or(refusal),
        };
        assert!(is_immediate(command), "{line}");
        let mut cx = Immediate {
            settings: &mut self.settings,
            node: &self.node,
            client: &self.entry,
            worker: 0,
            now: UnixMillis(1_700_000_000_000),
        };
        execute(&mut cx, command, args.args())
    }

    /// The reply as RESP2 bytes, read as text.
    fn wire(&mut self, line: &str) -> String {
        let mut out = Vec::new();
        self.send(line).write(&mut Writer::new(&mut out, self.settings.resp));
        String::from_utf8(out).unwrap()
    }

    /// The reply as the text it holds.
    fn text(&mut self, line: &str) -> String {
        match self.send(line) {
            Reply::Verbatim { text, .. } | Reply::Bulk(text) => String::from_utf8(text).unwrap(),
            other => panic!("not a text: {other:?}"),
        }
    }
}

#[test]
fn replies_are_byte_for_byte_those_of_redis() {
    for (line, reply) in [
        ("PING", "+PONG\r\n"),
        ("PING a", "$1\r\na\r\n"),
        ("ECHO a", "$1\r\na\r\n"),
        ("SELECT 3", "+OK\r\n"),
        ("RESET", "+RESET\r\n"),
        ("QUIT", "+OK\r\n"),
        ("CLIENT ID", ":7\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("CLIENT SETNAME me", "+OK\r\n"),
        ("CLIENT KILL ID 999", ":0\r\n"),
        ("CLIENT NO-EVICT on", "+OK\r\n"),
        ("CLIENT LIST TYPE pubsub", "$0\r\n\r\n"),
        ("CONFIG GET nothing", "*0\r\n"),
        ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CONFIG RESETSTAT", "+OK\r\n"),
        ("SLOWLOG GET", "*0\r\n"),
        ("SLOWLOG LEN", ":0\r\n"),
        ("LATENCY LATEST", "*0\r\n"),
        ("LATENCY RESET", ":0\r\n"),
        ("LATENCY HISTOGRAM ping", "*0\r\n"),
        ("FUNCTION FLUSH", "+OK\r\n"),
        ("FUNCTION LIST", "*0\r\n"),
        ("SCRIPT FLUSH ASYNC", "+OK\r\n"),
        ("SCRIPT EXISTS a b", "*2\r\n:0\r\n:0\r\n"),
        ("CLUSTER KEYSLOT a", ":15495\r\n"),
        ("READONLY", "+OK\r\n"),
        ("ASKING", "+OK\r\n"),
        ("COMMAND GETKEYS get a", "*1\r\n$1\r\na\r\n"),
    ] {
        assert_eq!(Client::new().wire(line), reply, "{line}");
    }
}

#[test]
fn errors_are_in_the_words_of_redis() {
    let mut client = Client::new();
    for (line, text) in [
        ("PING a b", "ERR wrong number of arguments for 'ping' command"),
        ("SELECT 16", "ERR DB index is out of range"),
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("CLIENT", "ERR wrong number of arguments for 'client' command"),
        ("CLIENT FOO", "ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        ("CLIENT ID x", "ERR wrong number of arguments for 'client|id' command"),
        ("CLIENT KILL foo", "ERR No such client"),
        ("CLIENT REPLY foo", "ERR syntax error"),
        ("CONFIG SET foo bar", "ERR Unknown option or number of arguments for CONFIG SET - 'foo'"),
        ("CONFIG REWRITE", "ERR The server is running without a config file"),
        ("SLOWLOG GET a", "ERR count should be greater than or equal to -1"),
        ("LATENCY GRAPH foo", "ERR No samples available for event 'foo'"),
        ("CLUSTER FOO", "ERR unknown subcommand 'FOO'. Try CLUSTER HELP."),
        ("CLUSTER REPLICAS abc", "ERR Unknown node abc"),
        ("CLUSTER COUNT-FAILURE-REPORTS abc", "ERR Unknown node abc"),
    ] {
        assert_eq!(client.wire(line), format!("-{text}\r\n"), "{line}");
    }
    assert!(client.wire("DEBUG SLEEP 0").starts_with("-ERR DEBUG command not allowed"));
}

#[test]
fn a_node_without_cluster_shows_itself_where_the_client_dialled_it() {
    let mut client = Client::new();
    let id = client.text("CLUSTER MYID");
    assert_eq!(
        client.text("CLUSTER NODES"),
        format!("{id} 10.0.0.2:6379@16379 myself,master - 0 0 0 connected\n")
    );
    assert_eq!(client.send("CLUSTER SLOTS"), Reply::Array(Vec::new()));
    let info = client.text("CLUSTER INFO");
    assert!(info.contains("cluster_state:fail\r\n") && info.contains("cluster_slots_assigned:0\r\n"));
    assert_eq!(client.send(&format!("CLUSTER COUNT-FAILURE-REPORTS {id}")), Reply::Integer(0));
}

#[test]
fn info_has_what_drivers_read() {
    let mut client = Client::new();
    let info = client.text("INFO");
    for field in [
        "redis_version:7.2",
        "redis_mode:standalone",
        "gyre_version:",
        "role:master",
        "loading:0",
        "connected_clients:1",
        "blocked_clients:0",
        "used_memory:",
        "tcp_port:6379",
        "cluster_enabled:0",
        "cluster_formed:0",
        "aof_enabled:1",
    ] {
        assert!(info.contains(&format!("\r\n{field}")), "{field}");
    }
    assert!(!info.contains("# Commandstats") && client.text("INFO all").contains("# Commandstats"));
    assert!(client.text("INFO replication").starts_with("# Replication\r\nrole:master\r\n"));
}

#[test]
fn client_list_shows_the_callers_own_settings_as_they_are_now() {
    let mut client = Client::new();
    client.send("CLIENT SETNAME me");
    client.send("SELECT 4");
    let list = client.text("CLIENT LIST");
    assert_eq!(list.lines().count(), 1);
    assert!(list.contains(" name=me ") && list.contains(" db=4 ") && list.contains(" cmd=client|list "));
    assert!(client.text("CLIENT INFO").contains(" cmd=client|info "));
}

#[test]
fn every_immediate_command_answers_in_its_shortest_form() {
    for id in CommandId::ALL {
        let command = id.command();
        if !is_immediate(command) {
            continue;
        }
        let words = command.arity.unsigned_abs() - command.name.split('|').count();
        let line = format!("{} {}", command.name.replace('|', " "), "x ".repeat(words));
        if let Reply::Error(text) = Client::new().send(&line) {
            let code = text.split(' ').next().unwrap_or_default();
            assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase()), "{line}: {text}");
            assert!(!text.contains("please report"), "{line}: {text}");
        }
    }
}

#[test]
fn no_command_has_two_functions() {
    for id in CommandId::ALL {
        let functions = [connection_handler(*id), server_handler(*id), cluster_handler(*id)];
        assert!(functions.iter().flatten().count() <= 1, "{id:?}");
    }
}

#[test]
fn a_command_on_keys_is_never_immediate() {
    for id in CommandId::ALL {
        let command = id.command();
        assert!(command.keys.is_empty() || !is_immediate(command), "{}", command.name);
    }
}
