//! A network of namespaces, made for one test and removed after it, whose links can be cut, slowed and made lossy.
//!
//! Each node gets a namespace with one device and an address of its own, 198.18.n.1 and up (the range that RFC 2544
//! keeps for tests). This process is a host too: its clients reach every node, whatever happens between the nodes.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::{Cluster, Node};
use crate::wire::{Condition, Wire, tun_device};

/// Last byte of the address of this process.
const CLIENTS: u8 = 254;
/// A namespace and the device in it are named `gy<process>-<network>-<host>`: 15 bytes at most.
const PREFIX: &str = "gy";

/// Namespaces, a node each, and the wire between them.
pub(crate) struct Network {
    subnet: u8,
    namespaces: Vec<String>,
    /// The device in this process's own namespace.
    own_device: String,
    wire: Wire,
}

impl Network {
    /// A network for `nodes` nodes; `None`, loudly, where the system does not permit it.
    pub(crate) fn start(nodes: usize) -> Option<Network> {
        remove_leftovers();
        match Network::try_start(nodes) {
            Ok(network) => Some(network),
            Err(reason) => {
                let name = std::thread::current().name().unwrap_or_default().to_string();
                // Past the capture of output: whoever runs the tests must see it.
                let _ = writeln!(
                    io::stderr(),
                    "\n*** SKIPPED {name}: network namespaces cannot be made here ({reason}).\n*** It takes Linux, \
                     root (CAP_NET_ADMIN, CAP_SYS_ADMIN), /dev/net/tun and the program `ip` (iproute2).\n"
                );
                None
            }
        }
    }

    fn try_start(nodes: usize) -> Result<Network, String> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // Another run at the same time most likely has another one.
        let subnet = (process as u8).wrapping_mul(17).wrapping_add(number);
        let name = |host: usize| format!("{PREFIX}{process}-{number}-{host}");
        let device = |name: &str| tun_device(name).map_err(|error| format!("a TUN device: {error}"));
        let mut made = Made::default();
        let mut devices = Vec::new();
        for host in 0..nodes {
            let name = &name(host);
            made.namespace(name)?;
            devices.push(device(name)?);
            ip(&["link", "set", name, "netns", name])?;
            let address = format!("{}/24", address(subnet, host_byte(host)));
            ip(&["-n", name, "address", "add", &address, "dev", name])?;
            ip(&["-n", name, "link", "set", name, "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        let own_device = name(nodes);
        devices.push(device(&own_device)?);
        let own_address = format!("{}/24", address(subnet, CLIENTS));
        ip(&["address", "add", &own_address, "dev", &own_device])?;
        ip(&["link", "set", &own_device, "up"])?;
        let wire = Wire::start(devices, move |[.., third, last]| match last {
            _ if third != subnet => None,
            CLIENTS => Some(nodes),
            last => usize::from(last).checked_sub(1).filter(|host| *host < nodes),
        });
        Ok(Network { subnet, namespaces: std::mem::take(&mut made.0), own_device, wire })
    }

    /// A formed cluster with a node in each namespace, all with `flags`.
    pub(crate) fn cluster(&self, flags: &[&str]) -> Cluster {
        let needed = ["--cluster-secret", "between namespaces", "--protected-mode", "no"];
        Cluster::start_as(
            self.namespaces.len(),
            &[&needed, flags].concat(),
            |index, dir: &Path, name: &str| {
                Node::inside(&self.namespaces[index], address(self.subnet, host_byte(index)), dir, name)
            },
        )
    }

    /// Puts `condition` in force for what nodes of `from` send to nodes of `to`.
    pub(crate) fn set(&self, from: &[usize], to: &[usize], condition: Condition) {
        for from in from {
            for to in to.iter().filter(|to| *to != from) {
                self.wire.set(*from, *to, condition);
            }
        }
    }

    /// Nothing passes between the nodes of `one` and of `other`.
    pub(crate) fn cut(&self, one: &[usize], other: &[usize]) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Nothing that nodes of `from` send reaches nodes of `to`.
    pub(crate) fn cut_one_way(&self, from: &[usize], to: &[usize]) {
        self.set(from, to, Condition { cut: true, ..Condition::default() });
    }

    /// `condition` holds between any two nodes.
    pub(crate) fn set_all(&self, condition: Condition) {
        let nodes: Vec<usize> = (0..self.namespaces.len()).collect();
        self.set(&nodes, &nodes, condition);
    }

    /// The network between the nodes is whole again.
    pub(crate) fn heal(&self) {
        self.set_all(Condition::default());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The nodes have been ended before. The devices first: whoever reads one learns at once that it is gone.
        for name in &self.namespaces {
            say_if_failed(&ip(&["-n", name, "link", "delete", name]));
            say_if_failed(&ip(&["netns", "delete", name]));
        }
        say_if_failed(&ip(&["link", "delete", &self.own_device]));
        self.wire.stop();
    }
}

/// Namespaces made so far, removed again if the rest cannot be made. Devices go with their files.
#[derive(Default)]
struct Made(Vec<String>);

impl Made {
    fn namespace(&mut self, name: &str) -> Result<(), String> {
        ip(&["netns", "add", name])?;
        self.0.push(name.to_string());
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for namespace in &self.0 {
            say_if_failed(&ip(&["netns", "delete", namespace]));
        }
    }
}

fn address(subnet: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, subnet, host))
}

fn host_byte(host: usize) -> u8 {
    u8::try_from(host + 1).unwrap()
}

/// Runs `ip` with `arguments`. Answers what it prints.
fn ip(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn say_if_failed(result: &Result<String, String>) {
    if let Err(error) = result {
        eprintln!("cleaning up: {error}");
    }
}

/// Removes namespaces of runs that were killed.
fn remove_leftovers() {
    let Ok(list) = ip(&["netns", "list"]) else { return };
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    for name in names {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let is_ours =
            process.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
        if is_ours && process.is_some_and(|id| fs::metadata(format!("/proc/{id}")).is_err()) {
            say_if_failed(&ip(&["netns", "delete", name]));
        }
    }
}
