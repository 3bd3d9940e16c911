//! The other side of formation: what members of a cluster say to nodes that do not belong to one yet.

use super::{FormingMessage, Refusal};
use crate::node::NodeId;
use crate::topology::{Changed, Member, MemberState, Topology};

/// What a member of a cluster answers to a message of forming, and what that changes in its topology: whatever changed
/// must be durable before the answer is sent.
///
/// A fresh node that is not in the document is told to ask; if it asks it is [admitted](Topology::admit) as Joining; if
/// it is in the document it is sent it, and if that shows it that it has lost its disk, it asks for its seat. The shell
/// refuses a node that asks while another process of its id is connected ([`is_request_for_seat`]). A member that meets a fresh peer in a handshake (its cluster id is 0) should send
/// it [`FormingMessage::Formed`] without being asked: so a seed that lost its disk learns that there is a cluster.
pub fn greet(
    topology: &mut Topology,
    from: NodeId,
    message: &FormingMessage,
) -> (Changed, Option<FormingMessage>) {
    match message {
        FormingMessage::Status(_) | FormingMessage::Propose { .. } => {
            let answer = if topology.members.contains_key(&from) {
                FormingMessage::Document(Box::new(topology.clone()))
            } else {
                FormingMessage::Formed { cluster_id: topology.cluster_id }
            };
            (Changed::default(), Some(answer))
        }
        FormingMessage::Admit { member, replication_factor } if member.id == from => {
            let (cluster, node) = (topology.replication_factor, *replication_factor);
            if cluster != node {
                let refusal = Refusal::ReplicationFactor { cluster, node };
                return (Changed::default(), Some(FormingMessage::Refused(refusal)));
            }
            match topology.admit(member) {
                Ok(changed) => (changed, Some(FormingMessage::Document(Box::new(topology.clone())))),
                Err(error) => (Changed::default(), Some(FormingMessage::Refused(error.into()))),
            }
        }
        _ => (Changed::default(), None),
    }
}

/// Whether `message` of `from` asks for a seat that `topology` gives to a member with data: what only that member may
/// do, after it has lost its disk, and no second process of its id.
#[must_use]
pub fn is_request_for_seat(topology: &Topology, from: NodeId, message: &FormingMessage) -> bool {
    let is_active = |member: &Member| member.state == MemberState::Active;
    matches!(message, FormingMessage::Admit { .. }) && topology.members.get(&from).is_some_and(is_active)
}
