//! Nodes that were started together from the same seeds.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::{Client, Node, eventually, eventually_equals};

/// A formed cluster.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    // Behind the nodes: dropped after them.
    _dir: TempDir,
}

impl Cluster {
    /// A cluster of `count` nodes.
    pub(crate) fn start(count: usize) -> Cluster {
        Cluster::start_with(count, &[])
    }

    /// A cluster whose nodes all have `flags`.
    pub(crate) fn start_with(count: usize, flags: &[&str]) -> Cluster {
        Cluster::start_as(count, flags, |_, dir, name| Node::new(dir, name))
    }

    /// A cluster of the nodes that `node` makes of their numbers, directories and names, all with `flags`.
    pub(crate) fn start_as(
        count: usize,
        flags: &[&str],
        node: impl Fn(usize, &Path, &str) -> Node,
    ) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes: Vec<Node> =
            (0..count).map(|index| node(index, dir.path(), &format!("node{index}"))).collect();
        let seeds = seeds(&nodes);
        for node in &mut nodes {
            node.start(&[&["--seeds", &seeds], flags].concat());
        }
        let mut cluster = Cluster { nodes, _dir: dir };
        cluster.wait_formed();
        cluster
    }

    /// Waits until every node runs, knows all others, and sees them up.
    pub(crate) fn wait_formed(&mut self) {
        let count = self.nodes.len();
        for node in &mut self.nodes {
            node.client_soon();
            let formed = ("ok".to_string(), count);
            eventually(&format!("the node at {} belongs to a cluster of {count}", node.address()), || {
                match node.cluster_info() {
                    Ok(info) if info == formed => Ok(()),
                    other => Err(other),
                }
            });
            eventually_equals("all nodes are up", &0, || node.sees_down());
        }
    }

    /// A connection to node `index`.
    pub(crate) fn client(&self, index: usize) -> Client {
        self.nodes[index].client()
    }

    /// A connection to each node.
    pub(crate) fn clients(&self) -> Vec<Client> {
        self.nodes.iter().map(Node::client).collect()
    }

    /// Waits until every running node but `down` sees as many nodes down as there are in `down`.
    pub(crate) fn wait_noticed(&self, down: &[usize]) {
        for (index, node) in self.nodes.iter().enumerate() {
            if !down.contains(&index) {
                eventually_equals("the outage is noticed", &down.len(), || node.sees_down());
            }
        }
    }
}

/// The value of `--seeds` that names all `nodes`.
pub(crate) fn seeds(nodes: &[Node]) -> String {
    let seeds = nodes.iter().map(|node| SocketAddr::new(node.host, node.peer_port).to_string());
    seeds.collect::<Vec<_>>().join(",")
}
