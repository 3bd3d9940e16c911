//! What clients asked for, and how it ended: the complete history, by tag.

use std::collections::BTreeSet;
use std::fmt;

use gyre_cluster::coordinator::Tag;
use gyre_cluster::message::Levels;
use gyre_storage::{KeyRef, Version};

use crate::checkers::{Floor, SiblingFloor};
use crate::queue::{Micros, SECOND};

/// What a key is used for, and so what must hold of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Blind writes, deletions and reads.
    Register,
    /// Blind writes with an expiry, changes of the expiry, reads.
    Expiring,
    /// Increments and reads.
    Counter,
    /// APPENDs of distinct words, and reads.
    Log,
    /// SET NX, and deletion by whoever holds it.
    Lock,
    /// Writes and deletions with contexts, and reads.
    Siblings,
    /// Everything.
    Mixed,
}

impl Kind {
    pub(crate) const ALL: [Kind; 7] =
        [Kind::Register, Kind::Expiring, Kind::Counter, Kind::Log, Kind::Lock, Kind::Siblings, Kind::Mixed];
}

/// A key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) db: u8,
}

impl Key {
    pub(crate) fn new(index: usize, kind: Kind) -> Key {
        Key { name: format!("{kind:?}-{index}").to_lowercase().into_bytes(), kind, db: 0 }
    }

    /// The number behind its name.
    pub(crate) fn index_of(name: &[u8]) -> Option<usize> {
        let dash = name.iter().position(|&byte| byte == b'-')?;
        std::str::from_utf8(&name[dash + 1..]).ok()?.parse().ok()
    }

    pub(crate) fn key_ref(&self) -> KeyRef<'_> {
        KeyRef::new(self.db, &self.name)
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// GET.
    Get,
    /// SET, of a value that names the operation, perhaps with an expiry so many milliseconds ahead.
    Set { ttl_ms: Option<u64> },
    /// A blind deletion.
    Delete,
    /// INCRBY.
    Add { delta: i64 },
    /// APPEND of a word that names the operation.
    Append,
    /// SET NX of a value that names the operation.
    Acquire,
    /// Deletes if the value still is that of the operation `holder`.
    Release { holder: Tag },
    /// GETDEL.
    GetDelete,
    /// GETEX: a new expiry so many milliseconds ahead, or none.
    GetExpire { ttl_ms: Option<u64> },
    /// VC.GET.
    GetSiblings,
    /// VC.SET of a value that names the operation, with the context that the operation `from` got or with none, perhaps
    /// with an expiry so many milliseconds ahead.
    SetSibling { from: Option<Tag>, ttl_ms: Option<u64> },
    /// VC.DEL with the context that the operation `from` got.
    DeleteSiblings { from: Tag },
}

impl Action {
    pub(crate) fn is_read(self) -> bool {
        matches!(self, Action::Get | Action::GetSiblings)
    }

    /// Whether it is a read-modify-write.
    pub(crate) fn is_modify(self) -> bool {
        !self.is_read() && !matches!(self, Action::Set { .. } | Action::Delete)
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Not yet.
    Pending,
    /// As asked.
    Done,
    /// A read-modify-write did nothing, by what it read.
    Refused,
    /// Too few replicas were alive; nothing was sent.
    Unavailable,
    /// Too few have answered; it may have been done.
    TimedOut,
    /// The node had too much to do; nothing was sent.
    Overloaded,
    /// Its node has stopped, and nobody will ever tell.
    Lost,
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) tag: Tag,
    /// `None`: of the simulation itself, after everything has come to rest.
    pub(crate) client: Option<usize>,
    pub(crate) node: usize,
    pub(crate) worker: usize,
    pub(crate) key: usize,
    pub(crate) action: Action,
    pub(crate) levels: Levels,
    /// When its node took it.
    pub(crate) begun_at: Option<Micros>,
    pub(crate) ended_at: Option<Micros>,
    pub(crate) end: End,
    /// The expiry it sets, in Unix milliseconds.
    pub(crate) expiry_ms: Option<u64>,
    /// The version of the row it wrote, or saw.
    pub(crate) version: Option<Version>,
    /// The value of a counter that it saw.
    pub(crate) count: Option<i64>,
    /// What it must see.
    pub(crate) floor: Floor,
    /// What it must not see: this, or anything older, was flushed before.
    pub(crate) flushed: Version,
    /// And of siblings.
    pub(crate) siblings: Option<Box<SiblingFloor>>,
    /// Only real replicas count for it, so that it binds and is bound by others of its kind.
    pub(crate) is_binding: bool,
    /// A replica of its key has lost rows meanwhile: what it has seen is no promise.
    pub(crate) is_tainted: bool,
    /// The client does not wait any more.
    pub(crate) is_abandoned: bool,
}

impl Operation {
    /// Whether others may rely on what it has seen or done.
    pub(crate) fn is_promise(&self) -> bool {
        self.is_binding && !self.is_tainted
    }
}

/// All operations, by tag.
#[derive(Default)]
pub(crate) struct History {
    operations: Vec<Operation>,
    /// Those that have not ended.
    unsettled: BTreeSet<u64>,
}

impl History {
    /// The tag of the next operation.
    pub(crate) fn next_tag(&self) -> Tag {
        Tag(self.operations.len() as u64)
    }

    pub(crate) fn add(&mut self, operation: Operation) {
        debug_assert_eq!(operation.tag, self.next_tag(), "tags are places in the history");
        self.unsettled.insert(operation.tag.0);
        self.operations.push(operation);
    }

    pub(crate) fn all(&self) -> &[Operation] {
        &self.operations
    }

    /// An operation has ended.
    pub(crate) fn settle(&mut self, tag: Tag) {
        self.unsettled.remove(&tag.0);
    }

    /// The operations that have not ended.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = &Operation> {
        self.unsettled.iter().map(|&tag| &self.operations[tag as usize])
    }

    /// A replica has lost rows: marks the operations under way that this touches. They need not see anything.
    pub(crate) fn taint(&mut self, is_touched: impl Fn(&Operation) -> bool) {
        for &tag in &self.unsettled {
            let operation = &mut self.operations[tag as usize];
            if is_touched(operation) {
                operation.is_tainted = true;
                operation.floor = Floor::default();
                operation.flushed = Version::ZERO;
            }
        }
    }

    pub(crate) fn get(&self, tag: Tag) -> &Operation {
        &self.operations[tag.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, tag: Tag) -> &mut Operation {
        &mut self.operations[tag.0 as usize]
    }

    /// The operation that wrote `version` of `key`, as far as it is known.
    pub(crate) fn writer(&self, key: usize, version: Version) -> Option<&Operation> {
        let is_writer = |operation: &&Operation| {
            operation.key == key && !operation.action.is_read() && operation.version == Some(version)
        };
        self.operations.iter().rev().find(is_writer)
    }

    /// The last `count` operations on `key`, one a line.
    pub(crate) fn tail(&self, key: usize, count: usize) -> String {
        let mut lines: Vec<String> = self
            .operations
            .iter()
            .rev()
            .filter(|operation| operation.key == key)
            .take(count)
            .map(ToString::to_string)
            .collect();
        lines.reverse();
        lines.join("\n")
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |at: Option<Micros>| {
            at.map_or("       -  ".into(), |at| format!("{:10.6}", at as f64 / SECOND as f64))
        };
        let Levels { read, write, quorums } = self.levels;
        write!(
            f,
            "  {}..{} #{:<5} node {:<2} {:?} {}/{} {} → {:?} {:?} {}{}",
            time(self.begun_at),
            time(self.ended_at),
            self.tag.0,
            self.node,
            self.action,
            read.name(),
            write.name(),
            quorums.name(),
            self.end,
            self.version.unwrap_or_default(),
            self.count.map_or(String::new(), |count| count.to_string()),
            if self.is_tainted { " (a replica lost rows)" } else { "" },
        )
    }
}
