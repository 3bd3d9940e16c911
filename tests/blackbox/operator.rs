//! What an operator sees: settings, status, metrics, `gyre dev`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Client, Cluster, Node, Reply, eventually, eventually_equals, node, ports};

/// What `gyre server` says when it refuses to start.
fn refusal(file: &str, flags: &[&str], variables: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gyre.toml");
    fs::write(&path, file).unwrap();
    let mut command = node::gyre();
    command.arg("server").arg("--config").arg(&path).arg("--dir").arg(dir.path().join("data"));
    let output = command.args(flags).envs(variables.iter().copied()).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn bad_settings_are_refused_by_name() {
    let text = refusal("prot = 7000\n", &[], &[]);
    assert!(text.contains("prot in ") && text.contains("did you mean port?"), "{text}");
    let text = refusal("appendfsync = \"sometimes\"\n", &[], &[]);
    assert!(
        text.contains("appendfsync") && text.contains("sometimes") && text.contains("everysec"),
        "{text}"
    );
    let text = refusal("", &[], &[("GYRE_NO_SUCH", "1")]);
    assert!(text.contains("GYRE_NO_SUCH"), "{text}");
    let text = refusal("", &["--port", "many"], &[]);
    assert!(text.contains("--port") && text.contains("many"), "{text}");
    let text = refusal("port = 7000\npeer-port = 7000\n", &[], &[]);
    assert!(text.contains("port and peer-port are both 7000"), "{text}");
    let text = refusal("", &["--seeds", "192.0.2.1:16379"], &[]);
    assert!(text.contains("cluster-secret"), "{text}");
}

#[test]
fn settings_come_from_file_and_environment_and_flags_and_change_at_run_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gyre.toml");
    fs::write(&file, "# kept\nslowlog-max-len = 11\ntimeout = 22\n").unwrap();
    let mut node = Node::new(dir.path(), "node");
    node.start(&["--config", file.to_str().unwrap(), "--timeout", "33"]);
    let mut client = node.client_soon();
    let mut get = |name: &str| client.run(&format!("CONFIG GET {name}")).array().pop().unwrap().text();
    assert_eq!(
        (get("slowlog-max-len"), get("timeout"), get("appendonly")),
        ("11".into(), "33".into(), "yes".into())
    );
    assert_eq!(client.run("CONFIG SET slowlog-max-len 44"), Reply::ok());
    assert_eq!(client.run("CONFIG REWRITE"), Reply::ok());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("# kept") && text.contains("slowlog-max-len = 44"), "{text}");
}

/// Status line and body of a GET request.
fn http(port: u16, path: &str) -> Result<(String, String), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: gyre\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    Ok((head.lines().next().unwrap_or_default().to_string(), body.to_string()))
}

#[test]
fn health_and_metrics_are_told_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let http_port = ports::free();
    let flag = http_port.to_string();
    let mut nodes = [Node::new(dir.path(), "early"), Node::new(dir.path(), "late")];
    let seeds = crate::support::cluster::seeds(&nodes);
    nodes[0].start(&["--seeds", &seeds, "--http-port", &flag]);
    let (status, body) = eventually("the node answers", || http(http_port, "/healthz"));
    assert!(status.contains(" 503 ") && body.contains("the ring has not formed"), "{status} {body}");
    nodes[1].start(&["--seeds", &seeds]);
    eventually("the node is healthy", || match http(http_port, "/healthz") {
        Ok((status, _)) if status.contains(" 200 ") => Ok(()),
        other => Err(other),
    });
    let mut client = nodes[0].client();
    eventually_equals("it serves", &Reply::ok(), || client.run("SET k v"));
    client.run("GET k");
    let (status, body) = http(http_port, "/metrics").unwrap();
    assert!(status.contains(" 200 "), "{status}");
    for line in ["gyre_ring_formed 1", "gyre_ring_members 2", "gyre_commands_total{command=\"get\"} 1"] {
        assert!(body.lines().any(|present| present == line), "no {line} in\n{body}");
    }
}

/// What a subcommand of `gyre` prints.
fn printed(arguments: &[&str]) -> String {
    let output = node::gyre().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn status_and_ring_show_the_cluster() {
    let mut cluster = Cluster::start(3);
    let port = cluster.nodes[1].port.to_string();
    let status: Value = serde_json::from_str(&printed(&["status", "--json", "--port", &port])).unwrap();
    assert_eq!((&status["state"], &status["replication-factor"]), (&"ok".into(), &3.into()));
    let nodes = status["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().all(|node| node["up"] == true && node["state"] == "active"), "{status}");

    let ring: Value = serde_json::from_str(&printed(&["ring", "--json", "--port", &port])).unwrap();
    let mut next = 0;
    for range in ring["ranges"].as_array().unwrap() {
        assert_eq!(range["first-slot"], next);
        assert_eq!(range["replicas"].as_array().unwrap().len(), 3);
        next = range["last-slot"].as_i64().unwrap() + 1;
    }
    assert_eq!(next, 16384);

    cluster.nodes[2].kill();
    let down = format!("DN  127.0.0.1:{}", cluster.nodes[2].port);
    eventually("the dead node is shown", || {
        let text = printed(&["status", "--port", &port]);
        if text.lines().any(|line| line.starts_with(&down)) { Ok(()) } else { Err(text) }
    });
    assert!(printed(&["ring", "--port", &port]).contains("PRIMARY"));
}

#[test]
fn what_the_replicas_of_a_key_hold_is_shown() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client(0);
    client.run("SET k first");
    cluster.nodes[2].kill();
    cluster.wait_noticed(&[2]);
    client.run("SET k second EX 1000");
    let dead = Reply::bulk(&cluster.nodes[2].address().to_string());
    let shown = client.run("GYRE REPLICAS k");
    assert_eq!(shown.field("agree"), Some(&Reply::Integer(0)));
    let replicas = shown.field("replicas").unwrap().clone().array();
    assert_eq!(replicas.len(), 3);
    let versions: BTreeSet<_> =
        replicas.iter().map(|replica| replica.field("version").unwrap().clone()).collect();
    assert_eq!(versions.len(), 2, "two have the newest, one says nothing: {shown:?}");
    for replica in &replicas {
        let (state, bytes) = match replica.field("address") == Some(&dead) {
            true => (Reply::bulk("silent"), Reply::Null),
            false => (Reply::bulk("live"), Reply::Integer(6)),
        };
        assert_eq!((replica.field("state"), replica.field("bytes")), (Some(&state), Some(&bytes)));
    }
    cluster.nodes[2].restart();
    cluster.wait_formed();
    client.run("CONSISTENCY READ ALL");
    assert_eq!(client.run("GET k"), Reply::bulk("second"));
    eventually_equals("all hold the newest", &Some(Reply::Integer(1)), || {
        client.run("GYRE REPLICAS k").field("agree").cloned()
    });
}

/// `gyre dev`, killed when dropped, with its nodes' own protection being that they are asked to stop first.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            // Asked, it stops its nodes; it is not killed, which would leave them.
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn gyre_dev_runs_a_cluster_until_it_is_interrupted_and_keeps_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let first = ports::free_row(3);
    let start = || {
        let mut command = node::gyre();
        command.args(["dev", "--nodes", "3", "--port", &first.to_string(), "--dir"]).arg(dir.path());
        command.args(["--", "--workers", "1"]);
        let mut dev = Dev(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(dev.0.stdout.take().unwrap()).lines();
        let hint = format!("redis-cli -p {first}");
        assert!(lines.any(|line| line.unwrap().contains(&hint)), "it says how to connect");
        dev
    };
    let mut dev = start();
    assert_eq!(Client::connect(first).run("SET k v"), Reply::ok());
    assert_eq!(Client::connect(first + 2).run("GET k"), Reply::bulk("v"));
    kill_process(Pid::from_child(&dev.0), Signal::INT).unwrap();
    let status = eventually("it stops", || dev.0.try_wait().unwrap().ok_or("it runs on"));
    assert!(status.success(), "{status}");
    assert!((first..first + 3).all(|port| Client::try_connect(("127.0.0.1", port)).is_err()));

    let _dev = start();
    assert_eq!(Client::connect(first + 1).run("GET k"), Reply::bulk("v"));
}
