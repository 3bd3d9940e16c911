//! Reading messages: bytes from a peer give a message or an error, never a panic, and nothing is allocated that
//! the bytes received do not pay for.

use gyre_storage::siblings::SiblingSet;
use gyre_storage::{Body, Cell, Hlc, KeyRef, Record, Row, UnixMillis, Version};

use super::{
    ClockReading, DecodeError, HintTargets, Levels, Message, Reason, RequestId, ScanRange, flag, kind, reason,
};
use crate::level::{Consistency, Level};
use crate::modify::{Modify, ModifyError, ModifyReply};
use crate::node::NodeId;
use crate::topology::Databases;

impl<'a> Message<'a> {
    /// Reads the message that `bytes` is, all of it.
    pub fn decode(bytes: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let mut reader = Reader { bytes };
        let message = reader.message()?;
        if reader.bytes.is_empty() { Ok(message) } else { Err(DecodeError::Malformed) }
    }

    /// Whether `bytes`, if they are a message, are a [`Message::Ping`] or [`Message::Pong`].
    #[must_use]
    pub fn is_about_clocks(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(kind::PING | kind::PONG)))
    }
}

/// What is left of a message.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn message(&mut self) -> Result<Message<'a>, DecodeError> {
        let kind = self.u8()?;
        Ok(match kind {
            kind::APPLY => {
                let request = self.request()?;
                let (row, want_digest, hints) = self.row()?;
                Message::Apply { request, row, want_digest, hints }
            }
            kind::ENTRUST => {
                let (request, forwarded) = (self.request()?, self.request()?);
                let (reply, digest) = (i64::from_le_bytes(self.array()?), self.u64()?);
                match self.row()? {
                    (row, true, HintTargets::NONE) => {
                        Message::Entrust { request, forwarded, reply, digest, row }
                    }
                    _ => return Err(DecodeError::Malformed),
                }
            }
            kind::APPLIED => Message::Applied { request: self.request()?, digest: self.option()? },
            kind::READ => Message::Read { request: self.request()?, key: self.key()? },
            kind::DIGEST => Message::Digest { request: self.request()?, key: self.key()? },
            kind::FOUND => Message::Found { request: self.request()?, record: self.record()? },
            kind::DIGESTED => Message::Digested { request: self.request()?, digest: self.u64()? },
            kind::REPAIR => {
                Message::Repair { request: self.request()?, key: self.key()?, record: self.record()? }
            }
            kind::MODIFY => {
                let request = self.request()?;
                let (read, write) = (self.consistency()?, self.level()?);
                let levels = Levels { read, write: write.consistency, quorums: write.quorums };
                let key = self.key()?;
                let modify = Modify::decode(self.rest()).map_err(|_| DecodeError::Malformed)?;
                Message::Modify { request, key, levels, modify }
            }
            kind::MODIFIED => Message::Modified { request: self.request()?, result: self.modified()? },
            kind::FAILED => Message::Failed { request: self.request()?, reason: self.reason()? },
            kind::SCAN => Message::Scan { request: self.request()?, range: self.range()? },
            kind::COUNT => Message::Count { request: self.request()?, range: self.range()? },
            kind::SCANNED => {
                let (request, next) = (self.request()?, self.option()?);
                Message::Scanned { request, next, entries: self.entries()? }
            }
            kind::COUNTED => {
                Message::Counted { request: self.request()?, next: self.option()?, keys: self.u64()? }
            }
            kind::CLOCK_READ => Message::ClockRead { request: self.request()? },
            kind::CLOCK_REPLY => Message::ClockReply { request: self.request()?, clock: Hlc(self.u64()?) },
            kind::HORIZON => Message::Horizon {
                request: self.request()?,
                databases: self.databases()?,
                version: self.version()?,
            },
            kind::HORIZON_SET => Message::HorizonSet { request: self.request()? },
            kind::TOPOLOGY => Message::Topology { bytes: self.rest() },
            kind::FORMING => Message::Forming { bytes: self.rest() },
            kind::GOSSIP => Message::Gossip { bytes: self.rest() },
            kind::PURGE => Message::Purge { bytes: self.rest() },
            kind::EXCHANGE => Message::Exchange { bytes: self.rest() },
            kind::PING => Message::Ping { nonce: self.u64()? },
            kind::PONG => {
                let nonce = self.u64()?;
                let reading = match self.bytes.is_empty() {
                    true => None,
                    false => Some(ClockReading { wall_us: self.u64()?, time_us: self.option()? }),
                };
                Message::Pong { nonce, reading }
            }
            kind::KEEP_HINT => {
                let (target, missed) = (NodeId(self.u64()?), self.version()?);
                Message::KeepHint { target, missed, key: self.key()? }
            }
            unknown => return Err(DecodeError::UnknownKind(unknown)),
        })
    }

    /// A row, whether a digest is wanted, and who misses the row.
    fn row(&mut self) -> Result<(Row<'a>, bool, HintTargets<'a>), DecodeError> {
        let flags = self.u8()?;
        let key = self.key()?;
        let version = self.version()?;
        let expiry = if flags & flag::EXPIRY != 0 { Some(UnixMillis(self.u64()?)) } else { None };
        let hints = if flags & flag::HINT != 0 { self.hint_targets()? } else { HintTargets::NONE };
        let (cell, body) = match flags & !(flag::WANT_DIGEST | flag::HINT) {
            0 | flag::EXPIRY => (Cell::Register, Body::Value(self.rest())),
            flag::TOMBSTONE => (Cell::Register, Body::Tombstone),
            flag::COUNTER => {
                let cell = Cell::Counter { actor: self.u64()? };
                (cell, Body::Counter { base: self.version()?, sum: i64::from_le_bytes(self.array()?) })
            }
            flag::SIBLINGS => {
                let cell = Cell::Siblings { actor: self.u64()? };
                let (base, set) = (self.version()?, self.rest());
                SiblingSet::decode(set).map_err(|_| DecodeError::Malformed)?;
                (cell, Body::Siblings { base, set })
            }
            _ => return Err(DecodeError::Malformed),
        };
        Ok((Row { key, cell, version, expiry, body }, flags & flag::WANT_DIGEST != 0, hints))
    }

    /// At least one: the flag says so.
    fn hint_targets(&mut self) -> Result<HintTargets<'a>, DecodeError> {
        let count = usize::from(self.u8()?);
        let (ids, _) = self.take(count * 8)?.as_chunks::<8>();
        HintTargets::new(ids).filter(|targets| !targets.is_empty()).ok_or(DecodeError::Malformed)
    }

    fn modified(&mut self) -> Result<Result<ModifyReply, ModifyError>, DecodeError> {
        match self.u8()? {
            0 => ModifyReply::decode(self.rest()).map(Ok).map_err(|_| DecodeError::Malformed),
            1 => ModifyError::from_code(self.u8()?).map(Err).map_err(|_| DecodeError::Malformed),
            _ => Err(DecodeError::Malformed),
        }
    }

    fn reason(&mut self) -> Result<Reason, DecodeError> {
        let [code, needed, count] = self.array()?;
        Ok(match code {
            reason::STORAGE => Reason::Storage,
            reason::OVERLOADED => Reason::Overloaded,
            reason::NOT_REPLICA => Reason::NotReplica,
            reason::UNAVAILABLE => Reason::Unavailable { needed, alive: count },
            reason::TIMEOUT => Reason::Timeout { needed, acked: count },
            _ => return Err(DecodeError::Malformed),
        })
    }

    fn range(&mut self) -> Result<ScanRange, DecodeError> {
        Ok(ScanRange {
            db: self.u8()?,
            from: self.u64()?,
            end: self.u64()?,
            keys_max: u32::from_le_bytes(self.array()?),
            bytes_max: u32::from_le_bytes(self.array()?),
        })
    }

    /// Entries to the end of the message: each takes at least eight bytes of it.
    fn entries(&mut self) -> Result<Vec<(Vec<u8>, Record)>, DecodeError> {
        let mut entries = Vec::new();
        while !self.bytes.is_empty() {
            let key = self.sized()?.to_vec();
            let record = Record::decode(self.sized()?).map_err(|_| DecodeError::Malformed)?;
            entries.push((key, record));
        }
        Ok(entries)
    }

    fn request(&mut self) -> Result<RequestId, DecodeError> {
        self.u64().map(RequestId)
    }

    fn key(&mut self) -> Result<KeyRef<'a>, DecodeError> {
        let db = self.u8()?;
        Ok(KeyRef::new(db, self.sized()?))
    }

    fn record(&mut self) -> Result<Record, DecodeError> {
        Record::decode(self.rest()).map_err(|_| DecodeError::Malformed)
    }

    fn consistency(&mut self) -> Result<Consistency, DecodeError> {
        Consistency::from_byte(self.u8()?).ok_or(DecodeError::Malformed)
    }

    fn level(&mut self) -> Result<Level, DecodeError> {
        Level::from_byte(self.u8()?).ok_or(DecodeError::Malformed)
    }

    fn option(&mut self) -> Result<Option<u64>, DecodeError> {
        let (present, value) = (self.u8()?, self.u64()?);
        match present {
            0 if value == 0 => Ok(None),
            1 => Ok(Some(value)),
            _ => Err(DecodeError::Malformed),
        }
    }

    fn databases(&mut self) -> Result<Databases, DecodeError> {
        let databases = Databases { first: self.u8()?, last: self.u8()? };
        if databases.first <= databases.last { Ok(databases) } else { Err(DecodeError::Malformed) }
    }

    fn version(&mut self) -> Result<Version, DecodeError> {
        Ok(Version { hlc: Hlc(self.u64()?), node: self.u64()? })
    }

    fn sized(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).map_err(|_| DecodeError::Malformed)?)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.bytes.split_first_chunk().ok_or(DecodeError::Malformed)?;
        self.bytes = tail;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.bytes.split_at_checked(length).ok_or(DecodeError::Malformed)?;
        self.bytes = tail;
        Ok(head)
    }
}
