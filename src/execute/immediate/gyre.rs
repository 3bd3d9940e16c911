//! `GYRE RING [KEY key]`: who holds what. `GYRE REPAIR`: making replicas equal. `GYRE STATUS` and `GYRE HINTS` are all
//! [`crate::status_report`]'s.

use gyre_cluster::node::NodeId;
use gyre_cluster::repair::{SlotRun, SlotSet};
use gyre_cluster::ring::Ring;
use gyre_cluster::topology::Topology;
use gyre_protocol::{Args, Reply};
use gyre_storage::SLOTS;
use gyre_storage::key::slot_of;

use crate::execute::immediate::words::is;
use crate::execute::{Answer, CommandError};
use crate::node::Node;
use crate::repair::Wanted;
use crate::status_report;
use crate::worker::mailbox::Letter;

/// `GYRE RING`: all of it, or where one key is.
pub fn ring(node: &Node, args: Args<'_>) -> Answer {
    match (args.len(), args.arg(2)) {
        (2, _) => Ok(status_report::ring_reply(node)),
        (4, option) if is(option, "KEY") => {
            let (ring, topology) = (node.ring.load(), node.topology.load());
            let is_up = |id| node.peers.is_up(id);
            Ok(place(args.arg(3), &ring, (**topology).as_ref(), is_up))
        }
        _ => Err(CommandError::SYNTAX),
    }
}

/// `GYRE REPAIR`: has this node compare what it keeps with all who keep the same; `ALL`: all nodes; `SLOT n`: the
/// replicas of one slot. `GYRE REPAIR STATUS`: how that stands.
pub fn repair(node: &Node, args: Args<'_>) -> Answer {
    let wanted = match (args.len(), args.arg(2)) {
        (2, _) => Wanted::Own,
        (3, option) if is(option, "STATUS") => return Ok(status_report::repair::reply(node)),
        (3, option) if is(option, "ALL") => Wanted::Everywhere(SlotSet::all()),
        (4, option) if is(option, "SLOT") => {
            let slot = std::str::from_utf8(args.arg(3)).ok().and_then(|text| text.parse::<u16>().ok());
            let slot = slot.filter(|slot| *slot < SLOTS).ok_or(CommandError::text("ERR Invalid slot"))?;
            Wanted::Everywhere(SlotSet::of(&[SlotRun { first: slot, last: slot }]))
        }
        _ => return Err(CommandError::SYNTAX),
    };
    if let Some(mailbox) = node.mailboxes.first() {
        // Without worker 0 the node is stopping.
        let _ = mailbox.send(Letter::Repair(wanted));
    }
    Ok(Reply::Ok)
}

/// The slot of `key` and the nodes that hold it, the primary first.
fn place(key: &[u8], ring: &Ring, topology: Option<&Topology>, is_up: impl Fn(NodeId) -> bool) -> Reply {
    let slot = slot_of(key);
    let replica = |id: &NodeId| {
        let member = topology.and_then(|topology| topology.members.get(id));
        let address = member.map(|member| member.client_addr.to_string()).unwrap_or_default();
        Reply::map([
            ("id", Reply::text(id.to_string())),
            ("address", Reply::text(address)),
            ("up", Reply::Boolean(is_up(*id))),
        ])
    };
    Reply::map([
        ("key", Reply::bulk(key)),
        ("slot", Reply::Integer(slot.into())),
        ("replicas", Reply::Array(ring.replicas(slot).iter().map(replica).collect())),
    ])
}

#[cfg(test)]
mod tests {
    use gyre_cluster::ring::RingMember;

    use super::*;

    #[test]
    fn a_key_is_placed_on_its_preference_list() {
        let members: Vec<RingMember> =
            (1..=4).map(|id| RingMember { id: NodeId(id), rack: None, vnodes: 150 }).collect();
        let ring = Ring::build(&members, 3);
        let reply = place(b"{a}b", &ring, None, |id| id.0 != 2);
        let Reply::Map(pairs) = reply else { panic!("a map") };
        assert_eq!(pairs[1].1, Reply::Integer(15495));
        let expected = ring.replicas(15495).iter().map(|id| {
            Reply::map([
                ("id", Reply::text(id.to_string())),
                ("address", Reply::text("")),
                ("up", Reply::Boolean(id.0 != 2)),
            ])
        });
        assert_eq!(pairs[2].1, Reply::Array(expected.collect()));
    }
}
