//! `CLUSTER …`: the cluster as Redis Cluster clients ask for it. Every node is a primary, no slot ever migrates, and
//! no node ever answers MOVED.

pub mod render;
pub mod view;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use gyre_cluster::node::NodeId;
use gyre_cluster::ring::Ring;
use gyre_cluster::topology::{Member, MemberState, Topology};
use gyre_protocol::{Args, Reply};
use gyre_storage::key::slot_of;

use crate::execute::immediate::Immediate;
use crate::execute::immediate::words::{refusal, shown};
use crate::execute::{Answer, CommandError};

use render::Traffic;
use view::{Shown, View};

/// `CLUSTER INFO`.
pub fn info(cx: &Immediate<'_>) -> Reply {
    render::info(&view(cx), Traffic::default())
}

/// `CLUSTER NODES`.
pub fn nodes(cx: &Immediate<'_>) -> Reply {
    render::nodes(&view(cx))
}

/// `CLUSTER SLOTS`.
pub fn slots(cx: &Immediate<'_>) -> Reply {
    render::slots(&view(cx))
}

/// `CLUSTER SHARDS`.
pub fn shards(cx: &Immediate<'_>) -> Reply {
    render::shards(&view(cx))
}

/// `CLUSTER MYID`, and `MYSHARDID`: each node is a shard of its own.
pub fn myid(cx: &Immediate<'_>) -> Reply {
    Reply::text(cx.node.id.to_string())
}

/// `CLUSTER KEYSLOT key`.
pub fn keyslot(args: Args<'_>) -> Reply {
    Reply::Integer(slot_of(args.arg(2)).into())
}

/// `CLUSTER LINKS`: one link to each peer that is up, standing for those of all workers.
pub fn links(cx: &Immediate<'_>) -> Reply {
    let link = |(id, queued): (NodeId, usize)| {
        Reply::map([
            ("direction", Reply::text("to")),
            ("node", Reply::text(id.to_string())),
            ("create-time", Reply::Integer(0)),
            ("events", Reply::text("rw")),
            ("send-buffer-allocated", Reply::count(queued)),
            ("send-buffer-used", Reply::count(queued)),
        ])
    };
    let peers = cx.node.peers.all().into_iter();
    Reply::Array(
        peers.filter(|(_, is_up, _)| *is_up).map(|(id, _, traffic)| link((id, traffic.queued()))).collect(),
    )
}

/// `CLUSTER COUNT-FAILURE-REPORTS id`: this node's own view is the only report there is.
pub fn count_failure_reports(cx: &Immediate<'_>, args: Args<'_>) -> Answer {
    let view = view(cx);
    let node = known(&view, args.arg(2))?;
    Ok(Reply::Integer(i64::from(!node.is_up)))
}

/// `CLUSTER REPLICAS id`: no node is a replica of another.
pub fn replicas(cx: &Immediate<'_>, args: Args<'_>) -> Answer {
    known(&view(cx), args.arg(2))?;
    Ok(Reply::Array(Vec::new()))
}

/// The member that a client names by its 40 digits.
fn known<'v>(view: &'v View, id: &[u8]) -> Result<&'v Shown, CommandError> {
    let parsed = std::str::from_utf8(id).ok().and_then(|id| id.parse::<NodeId>().ok());
    parsed.and_then(|id| view.node(id)).ok_or_else(|| refusal(format!("ERR Unknown node {}", shown(id))))
}

/// What a view was built from.
#[derive(PartialEq)]
struct Basis {
    ring: *const Ring,
    topology: *const Option<Topology>,
    up: Vec<bool>,
}

/// A view, and what keeps its basis' addresses from being reused.
struct Cached {
    basis: Basis,
    _held: (Arc<Ring>, Arc<Option<Topology>>),
    view: Rc<View>,
}

thread_local! {
    /// The latest view on this worker: clients refresh far more often than the cluster changes.
    static LATEST: RefCell<Option<Cached>> = const { RefCell::new(None) };
}

/// The cluster as it is now.
pub fn view(cx: &Immediate<'_>) -> Rc<View> {
    let (ring, topology) = (cx.node.ring.load_full(), cx.node.topology.load_full());
    let members = topology.as_ref().as_ref().map(members).unwrap_or_default();
    let up: Vec<bool> = members.iter().map(|member| cx.node.peers.is_up(member.id)).collect();
    let basis = Basis { ring: Arc::as_ptr(&ring), topology: Arc::as_ptr(&topology), up };
    LATEST.with_borrow_mut(|latest| {
        if let Some(cached) = latest.as_ref().filter(|cached| cached.basis == basis) {
            return Rc::clone(&cached.view);
        }
        let epoch = topology.as_ref().as_ref().map_or(0, |topology| topology.epoch);
        let nodes = if members.is_empty() { vec![alone(cx)] } else { shown_members(&members, &basis.up) };
        let view = Rc::new(View::build(nodes, cx.node.id, &ring, epoch));
        // Before the cluster has formed, the view depends on the connection: not kept.
        *latest = topology.is_some().then(|| {
            let held = (Arc::clone(&ring), Arc::clone(&topology));
            Cached { basis, _held: held, view: Rc::clone(&view) }
        });
        view
    })
}

/// The members that have not left.
fn members(topology: &Topology) -> Vec<&Member> {
    topology.members.values().filter(|member| member.state != MemberState::Left).collect()
}

fn shown_members(members: &[&Member], up: &[bool]) -> Vec<Shown> {
    let shown = |(member, is_up): (&&Member, &bool)| Shown {
        id: member.id,
        host: member.client_addr.host.clone(),
        port: member.client_addr.port,
        peer_port: member.peer_addr.port,
        is_up: *is_up,
        ranges: Vec::new(),
    };
    members.iter().zip(up).map(shown).collect()
}

/// This node before its cluster has formed: at the address the client has dialled.
fn alone(cx: &Immediate<'_>) -> Shown {
    let config = cx.node.config.load();
    Shown {
        id: cx.node.id,
        host: config.announce_host.clone().unwrap_or_else(|| cx.client.local_address.ip().to_string()),
        port: config.announce_port.unwrap_or(config.port),
        peer_port: config.announce_peer_port.unwrap_or(config.peer_port),
        is_up: true,
        ranges: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use gyre_protocol::OwnedArgs;

    use super::*;

    #[test]
    fn a_node_is_known_by_its_id_only() {
        let (view, _) = view::tests::view(3, &[]);
        let id = NodeId(2).to_string();
        assert_eq!(known(&view, id.as_bytes()).unwrap().id, NodeId(2));
        for id in [&b"abc"[..], NodeId(9).to_string().as_bytes(), b"\xff"] {
            let Err(CommandError::Text(text)) = known(&view, id) else { panic!("unknown") };
            assert_eq!(text, format!("ERR Unknown node {}", String::from_utf8_lossy(id)));
        }
    }

    #[test]
    fn keyslot_uses_the_hash_tag() {
        let slot = |key: &str| keyslot(["CLUSTER", "KEYSLOT", key].iter().collect::<OwnedArgs>().args());
        assert_eq!(slot("a"), Reply::Integer(15495));
        assert_eq!(slot("{a}b"), slot("a"));
    }
}
