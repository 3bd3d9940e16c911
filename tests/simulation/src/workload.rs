//! What clients ask for: for each kind of key the commands that its checker understands, at mixed levels.

use gyre_cluster::level::{Consistency, Quorums};
use gyre_cluster::message::Levels;

use crate::history::{Action, Kind};
use crate::plan::Plan;
use crate::queue::Micros;
use crate::random::Random;

const ONE: Consistency = Consistency::One;
const QUORUM: Consistency = Consistency::Quorum;
const ALL: Consistency = Consistency::All;

/// One operation to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) key: usize,
    pub(crate) action: Action,
    pub(crate) levels: Levels,
}

/// What a client does next: mostly one operation, now and then several at once, as MGET and MSET do.
pub(crate) fn step(random: &mut Random, plan: &Plan) -> Vec<Intent> {
    let count = if random.chance(120) { random.within(2..5) } else { 1 };
    (0..count).map(|_| intent(random, plan)).collect()
}

fn intent(random: &mut Random, plan: &Plan) -> Intent {
    let mut key = random.index(plan.keys.len());
    if random.chance(plan.hot_per_mille) {
        let kind = plan.keys[key].kind;
        key = plan.keys.iter().position(|key| key.kind == kind).unwrap_or(key);
    }
    let action = action(random, plan.keys[key].kind);
    Intent { key, action, levels: levels(random, plan.keys[key].kind, action, plan) }
}

fn action(random: &mut Random, kind: Kind) -> Action {
    let ttl_ms = |random: &mut Random| Some(random.skewed(50..30_000));
    let delta = 1 + random.below(9) as i64;
    match (kind, random.below(100)) {
        (Kind::Register, 0..45) => Action::Get,
        (Kind::Register, 45..85) => Action::Set { ttl_ms: None },
        (Kind::Register, _) => Action::Delete,
        (Kind::Expiring, 0..50) => Action::Get,
        (Kind::Expiring, 50..80) => Action::Set { ttl_ms: ttl_ms(random) },
        (Kind::Expiring, 80..90) => Action::GetExpire { ttl_ms: ttl_ms(random).filter(|_| delta > 3) },
        (Kind::Expiring, _) => Action::Delete,
        (Kind::Counter, 0..40) => Action::Get,
        (Kind::Counter, _) => Action::Add { delta },
        (Kind::Log, 0..50) => Action::Get,
        (Kind::Log, _) => Action::Append,
        (Kind::Lock, 0..30) => Action::Get,
        (Kind::Lock, _) => Action::Acquire,
        // What follows a VC.GET is up to the client.
        (Kind::Siblings, 0..55) => Action::GetSiblings,
        (Kind::Siblings, 55..60) => Action::Get,
        (Kind::Siblings, 60..70) => Action::SetSibling { from: None, ttl_ms: ttl_ms(random) },
        (Kind::Siblings, _) => Action::SetSibling { from: None, ttl_ms: None },
        (Kind::Mixed, 0..15) => Action::Get,
        (Kind::Mixed, 15..22) => Action::GetSiblings,
        (Kind::Mixed, 22..28) => Action::SetSibling { from: None, ttl_ms: ttl_ms(random) },
        (Kind::Mixed, 28..35) => Action::Set { ttl_ms: None },
        (Kind::Mixed, 35..45) => Action::Set { ttl_ms: ttl_ms(random) },
        (Kind::Mixed, 45..55) => Action::Delete,
        (Kind::Mixed, 55..70) => Action::Add { delta },
        (Kind::Mixed, 70..80) => Action::Append,
        (Kind::Mixed, 80..87) => Action::Acquire,
        (Kind::Mixed, 87..94) => Action::GetDelete,
        (Kind::Mixed, _) => Action::GetExpire { ttl_ms: ttl_ms(random).filter(|_| delta > 3) },
    }
}

/// Logs and locks want quorums, as anyone who builds on them does; the others want anything.
fn levels(random: &mut Random, kind: Kind, action: Action, plan: &Plan) -> Levels {
    let choices: &[Consistency] =
        if plan.is_quorum_only { &[QUORUM] } else { &[ONE, QUORUM, QUORUM, QUORUM, ALL] };
    let one = |random: &mut Random| random.pick(choices);
    let quorums = if random.chance(plan.sloppy_per_mille) { Quorums::Sloppy } else { Quorums::Strict };
    match kind {
        Kind::Log | Kind::Lock if !action.is_read() => Levels { read: QUORUM, write: QUORUM, quorums },
        _ => Levels { read: one(random), write: one(random), quorums },
    }
}

/// How long a client thinks before its next step.
pub(crate) fn think(random: &mut Random, plan: &Plan) -> Micros {
    random.below(plan.think.max(1))
}
