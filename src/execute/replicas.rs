//! `GYRE REPLICAS key`: what each replica holds of a key, for whoever wants to know whether they agree.

use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::ReplicaState;
use gyre_cluster::topology::Topology;
use gyre_protocol::Reply;
use gyre_storage::{KeyRef, Record, UnixMillis, View};

use crate::execute::{Answer, Arguments, Context};

/// `GYRE REPLICAS key`: a map for each replica, the primary first. Reads and repairs nothing else.
pub async fn replicas(cx: &Context, args: &Arguments) -> Answer {
    let key = args.get(2);
    let states = cx.replicas(cx.db(), key).await?;
    let topology = cx.node().topology.load();
    let replicas = states.iter().map(|(id, state)| {
        let is_up = cx.node().peers.is_up(*id);
        Reply::map(place(*id, (**topology).as_ref(), is_up).into_iter().chain(content(state, cx.now())))
    });
    Ok(Reply::map([
        ("key", Reply::bulk(key)),
        ("slot", Reply::Integer(KeyRef::new(cx.db(), key).slot().into())),
        ("agree", Reply::Boolean(agree(&states))),
        ("replicas", Reply::Array(replicas.collect())),
    ]))
}

fn place(id: NodeId, topology: Option<&Topology>, is_up: bool) -> [(&'static str, Reply); 3] {
    let member = topology.and_then(|topology| topology.members.get(&id));
    let address = member.map(|member| member.client_addr.to_string()).unwrap_or_default();
    [("id", Reply::text(id.to_string())), ("address", Reply::text(address)), ("up", Reply::Boolean(is_up))]
}

/// State, newest version, digest, bytes of the value, expiry in Unix milliseconds, counter cells, siblings; null where
/// there is nothing to tell.
fn content(state: &ReplicaState, now: UnixMillis) -> [(&'static str, Reply); 7] {
    let names = ["state", "version", "digest", "bytes", "expires-at-ms", "counter-cells", "siblings"];
    let values = match state {
        ReplicaState::Silent => [Reply::text("silent"), NULL, NULL, NULL, NULL, NULL, NULL],
        ReplicaState::Holds(record) if record.is_absent() => {
            [Reply::text("absent"), NULL, NULL, NULL, NULL, NULL, NULL]
        }
        ReplicaState::Holds(record) => [
            Reply::text(condition(record, now)),
            // In decimal milliseconds, counter, and the coordinator that stamped it: as the log writes versions.
            Reply::text(format!("{:?}", record.newest_version())),
            Reply::text(format!("{:016x}", record.digest())),
            record.view(now).map_or(NULL, |view| Reply::count(bytes(view))),
            record.expiry(now).map_or(NULL, |at| Reply::Integer(i64::try_from(at.0).unwrap_or(i64::MAX))),
            Reply::count(record.counters().count()),
            Reply::count(record.siblings(now).len()),
        ],
    };
    let mut values = values.into_iter();
    names.map(|name| (name, values.next().unwrap_or(NULL)))
}

const NULL: Reply = Reply::Null;

fn condition(record: &Record, now: UnixMillis) -> &'static str {
    let is_expired = record.register().is_some_and(|register| register.is_expired(now));
    match record.view(now) {
        Some(_) => "live",
        None if is_expired => "expired",
        None => "deleted",
    }
}

/// Bytes of the value as GET answers it.
fn bytes(view: View<'_>) -> usize {
    match view {
        View::Bytes(bytes) => bytes.len(),
        View::Integer(number) => number.to_string().len(),
    }
}

/// Whether every replica answered, and all with the same record.
fn agree(states: &[(NodeId, ReplicaState)]) -> bool {
    let digest = |state: &ReplicaState| match state {
        ReplicaState::Holds(record) => Some((record.is_absent(), record.digest())),
        ReplicaState::Silent => None,
    };
    let first = states.first().and_then(|(_, state)| digest(state));
    first.is_some() && states.iter().all(|(_, state)| digest(state) == first)
}

#[cfg(test)]
mod tests {
    use gyre_storage::{Hlc, Version};

    use super::*;

    const NOW: UnixMillis = UnixMillis(10_000);

    fn holds(millis: u64, expiry: Option<u64>, value: Option<&[u8]>) -> ReplicaState {
        let version = Version { hlc: Hlc::from_millis(millis), node: 7 };
        ReplicaState::Holds(Record::of_register(version, expiry.map(UnixMillis), value))
    }

    /// The values of the map by name.
    fn shown(state: &ReplicaState) -> Vec<Reply> {
        content(state, NOW).into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn a_live_key_shows_version_length_and_expiry() {
        let shown = shown(&holds(5, Some(20_000), Some(b"value")));
        assert_eq!(shown[..2], [Reply::text("live"), Reply::text("5.0@0000000000000007")]);
        assert_eq!(shown[3..], [5, 20_000, 0, 1].map(Reply::Integer));
    }

    #[test]
    fn what_is_not_live_says_why() {
        let states = [
            (holds(5, None, None), "deleted"),
            (holds(5, Some(9_999), Some(b"v")), "expired"),
            (ReplicaState::Holds(Record::ABSENT), "absent"),
            (ReplicaState::Silent, "silent"),
        ];
        for (state, word) in states {
            let shown = shown(&state);
            assert_eq!((&shown[0], &shown[3]), (&Reply::text(word), &Reply::Null));
        }
    }

    #[test]
    fn replicas_agree_when_all_answer_with_the_same_record() {
        let agreed = |states: &[ReplicaState]| {
            agree(&states.iter().map(|state| (NodeId(1), state.clone())).collect::<Vec<_>>())
        };
        let absent = ReplicaState::Holds(Record::ABSENT);
        assert!(agreed(&[holds(5, None, Some(b"v")), holds(5, None, Some(b"v"))]));
        assert!(agreed(&[absent.clone(), absent.clone()]));
        assert!(!agreed(&[holds(5, None, Some(b"v")), holds(6, None, Some(b"v"))]));
        assert!(!agreed(&[holds(5, None, Some(b"v")), absent]));
        assert!(!agreed(&[holds(5, None, Some(b"v")), ReplicaState::Silent]));
        assert!(!agreed(&[ReplicaState::Silent, ReplicaState::Silent]));
    }
}
