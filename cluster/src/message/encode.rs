//! Writing messages.

use gyre_storage::{Body, Cell, KeyRef, Row, Version};

use super::{HintTargets, Message, Reason, RequestId, ScanRange, flag, kind, reason};

impl Message<'_> {
    /// Appends the message without its [`tail`](Message::tail) to `out`.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        match self {
            Message::Apply { request, row, want_digest, hints } => {
                put_kind(out, kind::APPLY, *request);
                put_row(out, row, *want_digest, *hints);
            }
            Message::Entrust { request, forwarded, reply, digest, row } => {
                put_kind(out, kind::ENTRUST, *request);
                put_u64(out, forwarded.0);
                out.extend_from_slice(&reply.to_le_bytes());
                put_u64(out, *digest);
                put_row(out, row, true, HintTargets::NONE);
            }
            Message::Applied { request, digest } => {
                put_kind(out, kind::APPLIED, *request);
                put_option(out, *digest);
            }
            Message::Read { request, key } => put_keyed(out, kind::READ, *request, key),
            Message::Digest { request, key } => put_keyed(out, kind::DIGEST, *request, key),
            Message::Found { request, .. } => put_kind(out, kind::FOUND, *request),
            Message::Digested { request, digest } => {
                put_kind(out, kind::DIGESTED, *request);
                put_u64(out, *digest);
            }
            Message::Repair { request, key, .. } => put_keyed(out, kind::REPAIR, *request, key),
            Message::Modify { request, key, levels, modify } => {
                put_kind(out, kind::MODIFY, *request);
                out.push(levels.read.to_byte());
                out.push(levels.writing().to_byte());
                put_key(out, key);
                modify.encode(out);
            }
            Message::Modified { request, result } => {
                put_kind(out, kind::MODIFIED, *request);
                match result {
                    Ok(reply) => {
                        out.push(0);
                        reply.encode(out);
                    }
                    Err(error) => {
                        out.push(1);
                        out.push(error.code());
                    }
                }
            }
            Message::Failed { request, reason } => put_failed(out, *request, *reason),
            Message::Scan { request, range } => put_range(out, kind::SCAN, *request, range),
            Message::Count { request, range } => put_range(out, kind::COUNT, *request, range),
            Message::Scanned { request, entries, next } => {
                put_kind(out, kind::SCANNED, *request);
                put_option(out, *next);
                for (key, record) in entries {
                    put_bytes(out, key);
                    put_bytes(out, record.encoded());
                }
            }
            Message::Counted { request, keys, next } => {
                put_kind(out, kind::COUNTED, *request);
                put_option(out, *next);
                put_u64(out, *keys);
            }
            Message::ClockRead { request } => put_kind(out, kind::CLOCK_READ, *request),
            Message::ClockReply { request, clock } => {
                put_kind(out, kind::CLOCK_REPLY, *request);
                put_u64(out, clock.0);
            }
            Message::Horizon { request, databases, version } => {
                put_kind(out, kind::HORIZON, *request);
                out.extend([databases.first, databases.last]);
                put_version(out, *version);
            }
            Message::HorizonSet { request } => put_kind(out, kind::HORIZON_SET, *request),
            Message::Topology { .. } => out.push(kind::TOPOLOGY),
            Message::Forming { .. } => out.push(kind::FORMING),
            Message::Gossip { .. } => out.push(kind::GOSSIP),
            Message::Purge { .. } => out.push(kind::PURGE),
            Message::Exchange { .. } => out.push(kind::EXCHANGE),
            Message::Ping { nonce } => put_kind(out, kind::PING, RequestId(*nonce)),
            Message::Pong { nonce, reading } => {
                put_kind(out, kind::PONG, RequestId(*nonce));
                if let Some(reading) = reading {
                    put_u64(out, reading.wall_us);
                    put_option(out, reading.time_us);
                }
            }
            Message::KeepHint { target, key, missed } => {
                out.push(kind::KEEP_HINT);
                put_u64(out, target.0);
                put_version(out, *missed);
                put_key(out, key);
            }
        }
    }

    /// What follows the head: the message's value, record or document; empty for the others.
    #[must_use]
    pub fn tail(&self) -> &[u8] {
        match self {
            Message::Apply { row, .. } | Message::Entrust { row, .. } => match row.body {
                Body::Value(value) | Body::Siblings { set: value, .. } => value,
                Body::Tombstone | Body::Counter { .. } => &[],
            },
            Message::Found { record, .. } | Message::Repair { record, .. } => record.encoded(),
            Message::Topology { bytes }
            | Message::Forming { bytes }
            | Message::Gossip { bytes }
            | Message::Exchange { bytes }
            | Message::Purge { bytes } => bytes,
            _ => &[],
        }
    }

    /// Appends the whole message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_head(out);
        out.extend_from_slice(self.tail());
    }
}

/// Flags and row, without a value or siblings, which are the message's tail.
fn put_row(out: &mut Vec<u8>, row: &Row<'_>, want_digest: bool, hints: HintTargets<'_>) {
    let body = match row.body {
        Body::Tombstone => flag::TOMBSTONE,
        Body::Value(_) => 0,
        Body::Counter { .. } => flag::COUNTER,
        Body::Siblings { .. } => flag::SIBLINGS,
    };
    let expiry = if row.expiry.is_some() { flag::EXPIRY } else { 0 };
    let hint = if hints.is_empty() { 0 } else { flag::HINT };
    out.push(body | expiry | hint | if want_digest { flag::WANT_DIGEST } else { 0 });
    put_key(out, &row.key);
    put_version(out, row.version);
    if let Some(expiry) = row.expiry {
        put_u64(out, expiry.0);
    }
    if !hints.is_empty() {
        out.push(u8::try_from(hints.ids().len()).unwrap_or(u8::MAX));
        out.extend_from_slice(hints.ids().as_flattened());
    }
    match (row.cell, row.body) {
        (Cell::Counter { actor }, Body::Counter { base, sum }) => {
            put_u64(out, actor);
            put_version(out, base);
            out.extend_from_slice(&sum.to_le_bytes());
        }
        (Cell::Siblings { actor }, Body::Siblings { base, .. }) => {
            put_u64(out, actor);
            put_version(out, base);
        }
        _ => {}
    }
}

fn put_failed(out: &mut Vec<u8>, request: RequestId, reason: Reason) {
    put_kind(out, kind::FAILED, request);
    let (code, needed, count) = match reason {
        Reason::Storage => (reason::STORAGE, 0, 0),
        Reason::Overloaded => (reason::OVERLOADED, 0, 0),
        Reason::NotReplica => (reason::NOT_REPLICA, 0, 0),
        Reason::Unavailable { needed, alive } => (reason::UNAVAILABLE, needed, alive),
        Reason::Timeout { needed, acked } => (reason::TIMEOUT, needed, acked),
    };
    out.extend_from_slice(&[code, needed, count]);
}

fn put_range(out: &mut Vec<u8>, kind: u8, request: RequestId, range: &ScanRange) {
    put_kind(out, kind, request);
    out.push(range.db);
    put_u64(out, range.from);
    put_u64(out, range.end);
    out.extend_from_slice(&range.keys_max.to_le_bytes());
    out.extend_from_slice(&range.bytes_max.to_le_bytes());
}

fn put_kind(out: &mut Vec<u8>, kind: u8, request: RequestId) {
    out.push(kind);
    put_u64(out, request.0);
}

fn put_keyed(out: &mut Vec<u8>, kind: u8, request: RequestId, key: &KeyRef<'_>) {
    put_kind(out, kind, request);
    put_key(out, key);
}

fn put_key(out: &mut Vec<u8>, key: &KeyRef<'_>) {
    out.push(key.db);
    put_bytes(out, key.key);
}

/// Length and bytes. Lengths fit 32 bits: keys and values are bounded far below (`proto-max-bulk-len`).
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    out.push(u8::from(value.is_some()));
    put_u64(out, value.unwrap_or(0));
}

fn put_version(out: &mut Vec<u8>, version: Version) {
    put_u64(out, version.hlc.0);
    put_u64(out, version.node);
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
