//! `CLUSTER NODES`, `SLOTS`, `SHARDS` and `INFO` as Redis 7.2 writes them, from a [`View`].

use std::fmt::Write;

use gyre_protocol::Reply;

use crate::execute::immediate::cluster::view::{Range, Shown, View};

/// Messages exchanged with peers since this node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
}

/// `CLUSTER NODES`.
pub fn nodes(view: &View) -> Reply {
    let lines: Vec<String> = view.nodes.iter().map(|node| node_line(view, node)).collect();
    Reply::verbatim(lines.concat())
}

/// The line of one node: `id host:port@peer-port flags primary ping pong epoch link slots…`. Ping and pong times
/// are 0: there is no such exchange.
fn node_line(view: &View, node: &Shown) -> String {
    let Shown { id, host, port, peer_port, .. } = node;
    let (flags, link) = match (*id == view.myself, node.is_up) {
        (true, _) => ("myself,master", "connected"),
        (false, true) => ("master", "connected"),
        (false, false) => ("master,fail", "disconnected"),
    };
    let mut line = format!("{id} {host}:{port}@{peer_port} {flags} - 0 0 {} {link}", view.epoch);
    for (first, last) in &node.ranges {
        // Writing to a string cannot fail.
        let _infallible =
            if first == last { write!(line, " {first}") } else { write!(line, " {first}-{last}") };
    }
    line.push('\n');
    line
}

/// `CLUSTER SLOTS`: one node a range.
pub fn slots(view: &View) -> Reply {
    let entry = |range: &Range| {
        let node = view.nodes.get(range.node)?;
        let endpoint = Reply::Array(vec![
            Reply::text(node.host.as_str()),
            Reply::Integer(node.port.into()),
            Reply::text(node.id.to_string()),
            Reply::Map(Vec::new()),
        ]);
        Some(Reply::Array(vec![
            Reply::Integer(range.first.into()),
            Reply::Integer(range.last.into()),
            endpoint,
        ]))
    };
    Reply::Array(view.ranges.iter().filter_map(entry).collect())
}

/// `CLUSTER SHARDS`: each node is a shard of its own.
pub fn shards(view: &View) -> Reply {
    let shard = |node: &Shown| {
        let slots = node.ranges.iter().flat_map(|(first, last)| [first, last]);
        Reply::map([
            ("slots", Reply::Array(slots.map(|slot| Reply::Integer((*slot).into())).collect())),
            ("nodes", Reply::Array(vec![shard_node(node)])),
        ])
    };
    Reply::Array(view.nodes.iter().map(shard).collect())
}

fn shard_node(node: &Shown) -> Reply {
    Reply::map([
        ("id", Reply::text(node.id.to_string())),
        ("port", Reply::Integer(node.port.into())),
        ("ip", Reply::text(node.host.as_str())),
        ("endpoint", Reply::text(node.host.as_str())),
        ("role", Reply::text("master")),
        ("replication-offset", Reply::Integer(0)),
        ("health", Reply::text(if node.is_up { "online" } else { "fail" })),
    ])
}

/// `CLUSTER INFO`. A slot with a live majority counts as `ok`, one with fewer live replicas as `pfail` (it is served
/// at ONE), one without any as `fail`; the state is `fail` when there is such a slot.
pub fn info(view: &View, traffic: Traffic) -> Reply {
    let health = view.health;
    let serving = view.nodes.iter().filter(|node| !node.ranges.is_empty()).count();
    Reply::verbatim(format!(
        "cluster_state:{}\r\ncluster_slots_assigned:{}\r\ncluster_slots_ok:{}\r\ncluster_slots_pfail:{}\r\n\
         cluster_slots_fail:{}\r\ncluster_known_nodes:{}\r\ncluster_size:{serving}\r\ncluster_current_epoch:{}\r\n\
         cluster_my_epoch:{}\r\ncluster_stats_messages_sent:{}\r\ncluster_stats_messages_received:{}\r\n\
         total_cluster_links_buffer_limit_exceeded:0\r\n",
        if view.is_ok() { "ok" } else { "fail" },
        health.assigned,
        health.ok,
        health.minority,
        health.lost,
        view.nodes.len(),
        view.epoch,
        view.epoch,
        traffic.sent,
        traffic.received,
    ))
}

#[cfg(test)]
mod tests {
    use gyre_cluster::node::NodeId;

    use super::*;
    use crate::execute::immediate::cluster::view::tests::view;

    fn text(reply: &Reply) -> String {
        match reply {
            Reply::Verbatim { text, .. } => String::from_utf8(text.clone()).unwrap(),
            other => panic!("not a text: {other:?}"),
        }
    }

    #[test]
    fn a_dead_node_is_flagged_and_shown_without_slots() {
        let (view, _) = view(3, &[2]);
        let text = text(&nodes(&view));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let dead = NodeId(2);
        assert!(lines.contains(&&*format!("{dead} 127.0.0.1:7002@17002 master,fail - 0 0 4 disconnected")));
        let own = lines.iter().find(|line| line.contains("myself,master")).unwrap();
        assert!(
            own.starts_with(&format!("{} 127.0.0.1:7001@17001 myself,master - 0 0 4 connected ", NodeId(1)))
        );
        assert!(lines.iter().filter(|line| !line.contains("fail")).all(|line| line.split(' ').count() > 8));
    }

    #[test]
    fn a_single_slot_is_a_number_and_a_run_a_range() {
        let (mut view, _) = view(1, &[]);
        view.nodes[0].ranges = vec![(0, 0), (2, 5)];
        assert!(text(&nodes(&view)).ends_with("connected 0 2-5\n"));
    }

    #[test]
    fn slots_lists_one_node_a_range() {
        let (view, _) = view(3, &[2, 3]);
        assert_eq!(
            slots(&view),
            Reply::Array(vec![Reply::Array(vec![
                Reply::Integer(0),
                Reply::Integer(16383),
                Reply::Array(vec![
                    Reply::text("127.0.0.1"),
                    Reply::Integer(7001),
                    Reply::text(NodeId(1).to_string()),
                    Reply::Map(Vec::new()),
                ]),
            ])])
        );
    }

    #[test]
    fn shards_say_who_is_online() {
        let (view, _) = view(3, &[3]);
        let Reply::Array(shards) = shards(&view) else { panic!("an array") };
        let health: Vec<String> = shards
            .iter()
            .map(|shard| format!("{shard:?}"))
            .map(|shard| if shard.contains(&format!("{:?}", b"online")) { "online" } else { "fail" }.into())
            .collect();
        assert_eq!(health, ["online", "online", "fail"]);
    }

    #[test]
    fn info_counts_slots_by_how_well_they_are_served() {
        let (healthy, _) = view(3, &[2]);
        let lines = text(&info(&healthy, Traffic { sent: 5, received: 6 }));
        for line in [
            "cluster_state:ok",
            "cluster_slots_assigned:16384",
            "cluster_slots_ok:16384",
            "cluster_known_nodes:3",
            "cluster_size:2",
            "cluster_my_epoch:4",
            "cluster_stats_messages_sent:5",
        ] {
            assert!(lines.contains(&format!("{line}\r\n")), "{line}");
        }
        let (broken, _) = view(6, &[2, 3, 4]);
        assert!(text(&info(&broken, Traffic::default())).starts_with("cluster_state:fail\r\n"));
    }
}
