//! Who has been away for how long, on worker 0: tells [`gyre_cluster::purge::absence::Absences`] who is up, saves its account,
//! and changes the topology document when a member's data lapses.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gyre_cluster::gossip::{Liveness, PeerView};
use gyre_cluster::node::NodeId;
use gyre_cluster::purge::absence::{AbsenceEffect, Absences, Seen, Vote};
use gyre_cluster::topology::{MemberState, Topology};
use gyre_storage::StorageError;

use crate::node::Node;
use crate::rejoin;
use crate::worker::Worker;
use crate::worker::turn::blocking;

/// How often is looked who is up.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const META_ABSENCES: &str = "absences";

/// Keeps account for ever. Worker 0 only.
pub async fn run(worker: Rc<Worker>) {
    let node = Arc::clone(worker.node());
    let mut core = begin(&node, &worker);
    while node.store.poisoned().is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
        let topology = node.topology.load_full();
        let Some(topology) = (*topology).as_ref() else { continue };
        if node.has_lapsed_itself() {
            // A process that learned it and ended before it had written it down is told nothing new.
            rejoin::look(&worker);
        }
        let grace = Duration::from_secs(node.config.load().tombstone_grace_seconds);
        let (seen, lapsed) = (seen(&node, topology), topology.lapsed());
        let is_whole = node.keeps_nothing_before.load(Ordering::Relaxed) > 0;
        let now = worker.now().mono;
        let effects = core.step(now, grace, &node.ring.load(), &seen, &lapsed, is_whole);
        node.away.store(Arc::new(core.votes().to_vec()));
        let down = seen.keys().filter_map(|&member| Some((member, core.away(member)?)));
        node.absences.store(Arc::new(down.collect()));
        for effect in effects {
            if let Err(error) = perform(&node, effect).await {
                tracing::error!(%error, "cannot save who has been away for how long");
            }
        }
    }
}

fn begin(node: &Node, worker: &Worker) -> Absences {
    let saved = node.store.meta_get(META_ABSENCES).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read who has been away for how long");
        None
    });
    let now = worker.now().mono;
    Absences::new(node.id, saved.as_deref(), now).unwrap_or_else(|error| {
        tracing::warn!(%error, "the account of who has been away is damaged: it begins anew");
        Absences::new(node.id, None, now).expect("an empty account is one")
    })
}

/// What is seen of the other members that own something.
fn seen(node: &Node, topology: &Topology) -> BTreeMap<NodeId, Seen> {
    let views = node.liveness.load();
    let others = topology.members.values();
    let others = others.filter(|member| member.state == MemberState::Active && member.id != node.id);
    others
        .map(|member| {
            let view = views.iter().find(|view| view.id == member.id);
            let about = view.and_then(|view| view.about.as_ref());
            // Others may have heard of it though this node does not.
            let lives = |view: &PeerView| view.liveness == Liveness::Up;
            let seen = Seen {
                is_up: node.peers.is_up(member.id) || view.is_some_and(lives),
                incarnation: member.incarnation,
                is_whole: about.is_some_and(|about| about.floor.is_some()),
                votes: about.map(|about| about.away.clone()).unwrap_or_default(),
            };
            (member.id, seen)
        })
        .collect()
}

async fn perform(node: &Arc<Node>, effect: AbsenceEffect) -> Result<(), StorageError> {
    let node = Arc::clone(node);
    match effect {
        AbsenceEffect::Save(bytes) => blocking(move || node.store.meta_put(META_ABSENCES, &bytes)).await,
        AbsenceEffect::Lapse(vote) => blocking(move || lapse(&node, vote)).await,
    }
}

/// The others go on without what a member holds.
fn lapse(node: &Node, Vote { member, incarnation }: Vote) -> Result<(), StorageError> {
    let is_new = node.install(|present| {
        let mut topology = present?.clone();
        topology.lapse(member, incarnation).then_some(topology)
    })?;
    if is_new {
        tracing::warn!(
            %member,
            incarnation,
            "all others have seen this node down for longer than tombstone-grace: they go on without what it holds, \
             and it must rejoin empty"
        );
    }
    Ok(())
}
