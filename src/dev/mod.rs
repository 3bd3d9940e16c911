//! `gyre dev`: a whole cluster of real server processes on this machine.
//!
//! It starts them, waits until they have formed a ring, says how to connect, and stops them. It restarts nothing, so
//! that one may kill a node and watch. Data and logs stay in its directory for the next run.

mod child;
mod ready;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::PEER_PORT_OFFSET;
use child::NodeProcess;

/// How often the processes and signals are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the nodes may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the wait for the ring says what it waits for.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Variables that one node alone may have.
pub(crate) const VARIABLES_OF_ONE_NODE: &[&str] = &[
    "GYRE_NODE_ID",
    "GYRE_RACK",
    "GYRE_ANNOUNCE_HOST",
    "GYRE_ANNOUNCE_PORT",
    "GYRE_ANNOUNCE_PEER_PORT",
    "GYRE_HTTP_PORT",
    "GYRE_PEER_BIND",
];

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, at least 1.
    pub nodes: u16,
    /// The client port of the first node.
    pub port: u16,
    /// Where data and logs live.
    pub dir: PathBuf,
    /// Further flags for every node.
    pub server_flags: Vec<String>,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// The ports run over 65535.
    #[error(
        "{nodes} nodes from port {port} on need ports up to {port} + {nodes} + 10000, which do not exist"
    )]
    NoSuchPort {
        /// How many nodes.
        nodes: u16,
        /// The first port.
        port: u16,
    },
    /// A port is in use.
    #[error("port {port}, {purpose} of node {node}, is taken: {source}; choose others with --port")]
    PortTaken {
        /// The port.
        port: u16,
        /// What it is for.
        purpose: &'static str,
        /// Whose it is, from 1.
        node: u16,
        /// What the system says.
        source: io::Error,
    },
    /// A file, directory or process cannot be made.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// A node ended before the ring had formed.
    #[error("node {node} ended before the ring had formed ({status}); the end of {log}:\n{tail}", log = .log.display())]
    NodeEnded {
        /// Which, from 1.
        node: u16,
        /// How.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// Every node has ended.
    #[error("all nodes have ended")]
    AllEnded,
}

/// Where one node of a dev cluster lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) number: u16,
    pub(crate) port: u16,
    pub(crate) peer_port: u16,
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// Runs a cluster until SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// [`DevError`]. Whatever was started has been stopped by then.
pub fn run(options: &Options) -> Result<(), DevError> {
    let system = |what: &str| {
        let what = what.to_string();
        move |source| DevError::System { what, source }
    };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(system("handle signals"))?;
    let program = std::env::current_exe().map_err(system("find this program"))?;
    let places = places(options)?;
    check_ports(&places)?;
    let mut nodes = Vec::new();
    for place in &places {
        match NodeProcess::start(&program, place, &arguments(options, &places, place)) {
            Ok(node) => nodes.push(node),
            Err(error) => {
                stop(&mut nodes, &mut signals);
                return Err(error);
            }
        }
    }
    let result = supervise(&mut nodes, &places, &mut signals);
    stop(&mut nodes, &mut signals);
    result
}

fn places(options: &Options) -> Result<Vec<Place>, DevError> {
    let none = || DevError::NoSuchPort { nodes: options.nodes, port: options.port };
    let dir = std::path::absolute(&options.dir)
        .map_err(|source| DevError::System { what: format!("find {}", options.dir.display()), source })?;
    let place = |index: u16| {
        let port = options.port.checked_add(index).ok_or_else(none)?;
        let peer_port = port.checked_add(PEER_PORT_OFFSET).ok_or_else(none)?;
        let number = index + 1;
        Ok(Place { number, port, peer_port, dir: dir.join(format!("node-{number}")) })
    };
    (0..options.nodes).map(place).collect()
}

/// The flags of one node.
fn arguments(options: &Options, places: &[Place], place: &Place) -> Vec<String> {
    let seeds: Vec<String> = places.iter().map(|place| format!("127.0.0.1:{}", place.peer_port)).collect();
    let mut arguments: Vec<String> = vec!["server".into()];
    for (flag, value) in [
        ("--dir", place.dir.display().to_string()),
        ("--bind", "127.0.0.1".into()),
        ("--port", place.port.to_string()),
        ("--peer-port", place.peer_port.to_string()),
        ("--seeds", seeds.join(",")),
    ] {
        // One alone needs to find nobody.
        if flag != "--seeds" || places.len() > 1 {
            arguments.extend([flag.into(), value]);
        }
    }
    arguments.extend(options.server_flags.iter().cloned());
    arguments
}

/// Sees that every port can be bound, before anything is started.
fn check_ports(places: &[Place]) -> Result<(), DevError> {
    for place in places {
        for (port, purpose) in [(place.port, "the client port"), (place.peer_port, "the peer port")] {
            let node = place.number;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| DevError::PortTaken {
                port,
                purpose,
                node,
                source,
            })?;
        }
    }
    Ok(())
}

/// Waits for the ring, and then for a signal or the end of all nodes.
fn supervise(nodes: &mut [NodeProcess], places: &[Place], signals: &mut Signals) -> Result<(), DevError> {
    if !wait_for_ring(nodes, places, signals)? {
        return Ok(());
    }
    say(&how_to_connect(places));
    let mut dead = BTreeSet::new();
    while signals.pending().next().is_none() {
        for node in nodes.iter_mut() {
            if let Some(status) = node.ended()
                && dead.insert(node.place.number)
            {
                let (number, log) = (node.place.number, node.place.log());
                say(&format!(
                    "Node {number} (port {}) has ended: {status}. Its log: {}\n",
                    node.place.port,
                    log.display()
                ));
            }
        }
        if dead.len() == nodes.len() {
            return Err(DevError::AllEnded);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Whether the ring has formed; false when a signal came first.
fn wait_for_ring(
    nodes: &mut [NodeProcess],
    places: &[Place],
    signals: &mut Signals,
) -> Result<bool, DevError> {
    say(&format!("Starting {} nodes, logs in {}\n", places.len(), log_pattern(places)));
    let started = Instant::now();
    let mut next_report = REPORT_EVERY;
    let mut waiting: Vec<(&Place, String)> =
        places.iter().map(|place| (place, String::from("starting"))).collect();
    while signals.pending().next().is_none() {
        for node in nodes.iter_mut() {
            if let Some(status) = node.ended() {
                let (number, log) = (node.place.number, node.place.log());
                return Err(DevError::NodeEnded { node: number, status, tail: child::tail(&log), log });
            }
        }
        waiting.retain_mut(|(place, why)| match ready::check(place.port, places.len()) {
            Ok(()) => {
                say(&format!("Node {} on port {} is part of the ring\n", place.number, place.port));
                false
            }
            Err(now) => {
                *why = now;
                true
            }
        });
        if waiting.is_empty() {
            return Ok(true);
        }
        if started.elapsed() >= next_report {
            next_report += REPORT_EVERY;
            for (place, why) in &waiting {
                say(&format!("Still waiting for node {} on port {}: {why}\n", place.number, place.port));
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(false)
}

/// Stops all nodes: SIGTERM, a bounded wait, SIGKILL. A further signal ends the wait.
fn stop(nodes: &mut [NodeProcess], signals: &mut Signals) {
    let running = nodes.iter_mut().filter_map(|node| node.ended().is_none().then_some(())).count();
    if running == 0 {
        return;
    }
    say(&format!("Stopping {running} nodes\n"));
    nodes.iter_mut().for_each(NodeProcess::terminate);
    let started = Instant::now();
    while started.elapsed() < STOP_TIMEOUT && signals.pending().next().is_none() {
        if nodes.iter_mut().all(|node| node.ended().is_some()) {
            say("Stopped. The data stays for the next run\n");
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    for node in nodes.iter_mut().filter_map(|node| node.ended().is_none().then_some(node)) {
        say(&format!("Node {} does not stop: killed\n", node.place.number));
        node.kill();
    }
}

fn how_to_connect(places: &[Place]) -> String {
    let mut text = String::from("\nThe cluster is ready. Any node serves any key:\n");
    for place in places {
        text += &format!("  redis-cli -p {:<5}   node {}\n", place.port, place.number);
    }
    let port = places.first().map_or(6379, |place| place.port);
    text += &format!("Nodes and ring:  gyre status --port {port}   gyre ring --port {port}\n");
    text += "Ctrl-C stops all nodes; kill one to see the others go on.\n\n";
    text
}

fn log_pattern(places: &[Place]) -> String {
    let parent = places.first().and_then(|place| place.dir.parent()).unwrap_or(Path::new("."));
    parent.join("node-*").join("log").display().to_string()
}

/// Prints to standard output; one that takes nothing must not end the cluster.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(nodes: u16, port: u16) -> Options {
        Options { nodes, port, dir: "/d".into(), server_flags: vec!["--log-level".into(), "debug".into()] }
    }

    #[test]
    fn nodes_get_neighbouring_ports_and_the_same_seeds() {
        let options = options(3, 7000);
        let places = places(&options).unwrap();
        assert_eq!(places[2], Place { number: 3, port: 7002, peer_port: 17002, dir: "/d/node-3".into() });
        let line = arguments(&options, &places, &places[1]).join(" ");
        assert_eq!(
            line,
            "server --dir /d/node-2 --bind 127.0.0.1 --port 7001 --peer-port 17001 \
             --seeds 127.0.0.1:17000,127.0.0.1:17001,127.0.0.1:17002 --log-level debug"
        );
    }

    #[test]
    fn one_node_alone_has_no_seeds() {
        let options = options(1, 7000);
        let places = places(&options).unwrap();
        assert!(!arguments(&options, &places, &places[0]).contains(&"--seeds".to_string()));
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        assert!(places(&options(3, 55_533)).is_ok());
        assert!(matches!(places(&options(3, 55_534)), Err(DevError::NoSuchPort { .. })));
        assert!(matches!(places(&options(3, 65_535)), Err(DevError::NoSuchPort { .. })));
    }

    #[test]
    fn a_taken_port_is_named_with_its_node() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let place = Place { number: 2, port, peer_port: 0, dir: "/d".into() };
        let error = check_ports(&[place]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("port {port}, the client port of node 2, is taken")), "{error}");
    }

    #[test]
    fn the_greeting_names_every_port() {
        let places = places(&options(3, 7000)).unwrap();
        let text = how_to_connect(&places);
        for port in 7000..7003 {
            assert!(text.contains(&format!("redis-cli -p {port}")), "{text}");
        }
        assert!(text.contains("gyre status --port 7000"));
        assert_eq!(log_pattern(&places), "/d/node-*/log");
    }
}
