//! After a fault: is every acknowledged write on every replica?

use std::collections::BTreeMap;

use crate::ledger::{Counter, GroupLedger, Ledger};
use crate::load::{Level, number};
use crate::support::{Client, Cluster, Reply, eventually};

/// Commands sent at once.
const PIPELINE: usize = 100;

/// What became of the writes of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) keys: usize,
    /// Keys on which the replicas did not agree yet when the cluster was whole again, before anything was read.
    pub(crate) behind: usize,
    /// Where a replica, or a read, did not have what it must.
    pub(crate) lost: Vec<String>,
}

/// Asks for every write of `group`, once the cluster is whole.
///
/// 1. `GYRE REPLICAS` counts the keys on which replicas disagree before reads repair them.
/// 2. A group that wrote at a quorum reads at QUORUM: what was acknowledged must be found by any majority. At ONE that is
///    not promised; those begin with step 3.
/// 3. Reads at ALL see and repair every replica.
/// 4. All replicas agree, by `GYRE REPLICAS`.
/// 5. Reads at QUORUM through every node find what they must: with 4, each replica has it.
///
/// `counters` are those of all groups: clients on several sides may have incremented the same.
pub(crate) fn verify(
    cluster: &Cluster,
    group: &GroupLedger,
    counters: &BTreeMap<String, Counter>,
) -> Verdict {
    let expected = Expected::of(&group.ledger, counters);
    let keys: Vec<String> = expected.0.keys().cloned().collect();
    let mut clients = cluster.clients();
    let mut verdict = Verdict { keys: keys.len(), ..Verdict::default() };
    verdict.behind = disagreeing(&mut clients[0], &keys).len();
    if group.group.level != Level::One {
        read_all(&mut clients[0], "QUORUM", &expected, &mut verdict);
    }
    read_all(&mut clients[0], "ALL", &expected, &mut verdict);
    eventually("all replicas agree", || match disagreeing(&mut clients[0], &keys) {
        keys if keys.is_empty() => Ok(()),
        keys => Err(keys),
    });
    for client in &mut clients {
        read_all(client, "QUORUM", &expected, &mut verdict);
    }
    verdict
}

/// Keys for which nodes keep hints, whatever their target.
pub(crate) fn pending_hints(cluster: &Cluster) -> i64 {
    cluster.clients().iter_mut().map(|client| keys_in(&client.run("GYRE HINTS"))).sum()
}

/// The sum of all fields `keys` anywhere in `reply`.
fn keys_in(reply: &Reply) -> i64 {
    let Reply::Array(items) = reply else { return 0 };
    let own = match reply.field("keys") {
        Some(Reply::Integer(keys)) => *keys,
        _ => 0,
    };
    own + items.iter().map(keys_in).sum::<i64>()
}

/// For each key the least and the greatest number that it may hold.
struct Expected(BTreeMap<String, (u64, u64)>);

impl Expected {
    fn of(ledger: &Ledger, counters: &BTreeMap<String, Counter>) -> Expected {
        let registers = ledger
            .registers
            .iter()
            .map(|register| (register.key.clone(), (register.acknowledged, register.attempted)));
        let counters = ledger.counters.keys().map(|key| {
            let sum = counters.get(key).copied().unwrap_or_default();
            (key.clone(), (sum.acknowledged, sum.attempted))
        });
        Expected(registers.chain(counters).collect())
    }
}

/// Keys of which some replica holds something else than the others, or says nothing.
pub(crate) fn disagreeing(client: &mut Client, keys: &[String]) -> Vec<String> {
    let replies = ask(client, keys.iter().map(|key| format!("GYRE REPLICAS {key}")));
    let disagree = |reply: &Reply| reply.field("agree") != Some(&Reply::Integer(1));
    keys.iter().zip(replies).filter(|(_, reply)| disagree(reply)).map(|(key, _)| key.clone()).collect()
}

/// Reads every key at `level` and notes what is missing.
fn read_all(client: &mut Client, level: &str, expected: &Expected, verdict: &mut Verdict) {
    assert_eq!(client.run(&format!("CONSISTENCY READ {level} STRICT")), Reply::ok());
    let replies = ask(client, expected.0.keys().map(|key| format!("GET {key}")));
    for ((key, (least, greatest)), reply) in expected.0.iter().zip(replies) {
        if number(&reply).is_none_or(|value| !(least..=greatest).contains(&&value)) {
            verdict.lost.push(format!("{key} read at {level} is {reply:?}, not {least} to {greatest}"));
        }
    }
}

/// Sends `lines` and answers their replies; lines that meet an error are sent again, with a bound.
fn ask(client: &mut Client, lines: impl Iterator<Item = String>) -> Vec<Reply> {
    let lines: Vec<String> = lines.collect();
    let mut replies: Vec<Reply> = Vec::new();
    for lines in lines.chunks(PIPELINE) {
        replies.extend(eventually("all reads are served", || {
            let replies = client.pipeline(lines);
            let error = replies.iter().find(|reply| !reply.error().is_empty());
            error.map_or_else(|| Ok(replies.clone()), |error| Err(error.clone()))
        }));
    }
    replies
}

mod tests {
    use super::*;
    use crate::ledger::all_counters;
    use crate::load::{self, Group};
    use crate::processes::{FLAGS, addresses};

    #[test]
    fn a_write_that_is_gone_and_an_increment_too_many_are_found() {
        let cluster = Cluster::start_with(3, FLAGS);
        let groups = Group::of_each(&[Level::Quorum], &addresses(&cluster));
        let groups = load::run(&groups, |progress| progress.wait_for(20));
        let mut client = cluster.client(1);
        let written = groups[0].ledger.registers.iter().find(|register| register.acknowledged > 0).unwrap();
        assert_eq!(client.run(&format!("DEL {}", written.key)), Reply::Integer(1));
        let counter = groups[1].ledger.counters.keys().next().unwrap();
        client.run(&format!("INCR {counter}"));

        let counters = all_counters(&groups);
        for (group, key) in groups.iter().zip([&written.key, counter]) {
            let lost = verify(&cluster, group, &counters).lost;
            // By one read at QUORUM, one at ALL, and one at QUORUM through each node.
            assert_eq!(lost.len(), 5, "{lost:?}");
            assert!(lost.iter().all(|line| line.starts_with(&format!("{key} "))), "{lost:?}");
        }
    }
}
