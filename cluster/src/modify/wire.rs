//! The binary form of read-modify-writes and of their answers, inside peer messages.
//!
//! One byte says which; then come the fixed fields, little-endian; then the value, to the end. Decoding borrows,
//! checks everything and allocates nothing but the reply's own bytes.

use gyre_storage::{Hlc, UnixMillis, Version};

use super::context::CausalContext;
use super::{ExpireCondition, ExpiryChange, Modify, ModifyError, ModifyReply, SetCondition};

/// The bytes are not a read-modify-write, or not an answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed read-modify-write")]
pub struct MalformedModify;

const SET: u8 = 1;
const GET_DELETE: u8 = 2;
const GET_EXPIRE: u8 = 3;
const APPEND: u8 = 4;
const SET_RANGE: u8 = 5;
const SET_BIT: u8 = 6;
const ADD: u8 = 7;
const ADD_FLOAT: u8 = 8;
const DELETE: u8 = 9;
const DELETE_IF_VERSION: u8 = 10;
const DELETE_IF_EQUAL: u8 = 11;
const EXPIRE: u8 = 12;
const PERSIST: u8 = 13;
const SET_SIBLING: u8 = 14;
const DELETE_SIBLINGS: u8 = 15;

impl<'a> Modify<'a> {
    /// Appends the binary form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Modify::Set { value, condition, expiry, get } => {
                out.extend_from_slice(&[SET, condition as u8, u8::from(get)]);
                put_expiry(out, expiry);
                out.extend_from_slice(value);
            }
            Modify::GetDelete => out.push(GET_DELETE),
            Modify::GetExpire { expiry } => {
                out.push(GET_EXPIRE);
                put_expiry(out, expiry);
            }
            Modify::Append { value } => put_tail(out, APPEND, value),
            Modify::SetRange { offset, value } => {
                out.push(SET_RANGE);
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(value);
            }
            Modify::SetBit { offset, bit } => {
                out.extend_from_slice(&[SET_BIT, u8::from(bit)]);
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Modify::Add { delta } => put_tail(out, ADD, &delta.to_le_bytes()),
            Modify::AddFloat { delta } => put_tail(out, ADD_FLOAT, delta),
            Modify::Delete => out.push(DELETE),
            Modify::DeleteIfVersion { version } => {
                put_tail(out, DELETE_IF_VERSION, &version.hlc.0.to_le_bytes());
                out.extend_from_slice(&version.node.to_le_bytes());
            }
            Modify::DeleteIfEqual { value } => put_tail(out, DELETE_IF_EQUAL, value),
            Modify::Expire { at, condition } => {
                out.extend_from_slice(&[EXPIRE, condition as u8]);
                out.extend_from_slice(&at.0.to_le_bytes());
            }
            Modify::Persist => out.push(PERSIST),
            Modify::SetSibling { context, value, expiry } => {
                out.push(SET_SIBLING);
                // Bounded by TOKEN_BYTES_MAX where it comes from.
                out.extend_from_slice(&u32::try_from(context.len()).unwrap_or(u32::MAX).to_le_bytes());
                out.extend_from_slice(context);
                put_expiry(out, expiry.map_or(ExpiryChange::Clear, ExpiryChange::At));
                out.extend_from_slice(value);
            }
            Modify::DeleteSiblings { context } => put_tail(out, DELETE_SIBLINGS, context),
        }
    }

    /// Reads what [`Modify::encode`] wrote; `bytes` must hold nothing else.
    pub fn decode(bytes: &'a [u8]) -> Result<Modify<'a>, MalformedModify> {
        let mut from = Reader(bytes);
        let modify = match from.u8()? {
            SET => {
                let condition = from.set_condition()?;
                let get = from.bool()?;
                let expiry = from.expiry()?;
                Modify::Set { value: from.rest(), condition, expiry, get }
            }
            GET_DELETE => Modify::GetDelete,
            GET_EXPIRE => Modify::GetExpire { expiry: from.expiry()? },
            APPEND => Modify::Append { value: from.rest() },
            SET_RANGE => Modify::SetRange { offset: from.u64()?, value: from.rest() },
            SET_BIT => {
                let bit = from.bool()?;
                Modify::SetBit { offset: from.u64()?, bit }
            }
            ADD => Modify::Add { delta: from.i64()? },
            ADD_FLOAT => Modify::AddFloat { delta: from.rest() },
            DELETE => Modify::Delete,
            DELETE_IF_VERSION => {
                let hlc = Hlc(from.u64()?);
                Modify::DeleteIfVersion { version: Version { hlc, node: from.u64()? } }
            }
            DELETE_IF_EQUAL => Modify::DeleteIfEqual { value: from.rest() },
            EXPIRE => {
                let condition = from.expire_condition()?;
                Modify::Expire { at: UnixMillis(from.u64()?), condition }
            }
            PERSIST => Modify::Persist,
            SET_SIBLING => {
                let context = from.context()?;
                let expiry = match from.expiry()? {
                    ExpiryChange::Clear => None,
                    ExpiryChange::At(at) => Some(at),
                    ExpiryChange::Keep => return Err(MalformedModify),
                };
                Modify::SetSibling { context, value: from.rest(), expiry }
            }
            DELETE_SIBLINGS => Modify::DeleteSiblings { context: checked(from.rest())? },
            _ => return Err(MalformedModify),
        };
        from.end()?;
        Ok(modify)
    }
}

const DONE: u8 = 1;
const NIL: u8 = 2;
const INTEGER: u8 = 3;
const BYTES: u8 = 4;

impl ModifyReply {
    /// Appends the binary form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ModifyReply::Done => out.push(DONE),
            ModifyReply::Nil => out.push(NIL),
            ModifyReply::Integer(number) => put_tail(out, INTEGER, &number.to_le_bytes()),
            ModifyReply::Bytes(bytes) => put_tail(out, BYTES, bytes),
        }
    }

    /// Reads what [`ModifyReply::encode`] wrote; `bytes` must hold nothing else.
    pub fn decode(bytes: &[u8]) -> Result<ModifyReply, MalformedModify> {
        let mut from = Reader(bytes);
        let reply = match from.u8()? {
            DONE => ModifyReply::Done,
            NIL => ModifyReply::Nil,
            INTEGER => ModifyReply::Integer(from.i64()?),
            BYTES => ModifyReply::Bytes(from.rest().to_vec()),
            _ => return Err(MalformedModify),
        };
        from.end()?;
        Ok(reply)
    }
}

impl ModifyError {
    /// The error's number on the wire. Numbers are never reused.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            ModifyError::NotAnInteger => 1,
            ModifyError::Overflow => 2,
            ModifyError::NotAFloat => 3,
            ModifyError::NotFinite => 4,
            ModifyError::TooLong => 5,
            ModifyError::SiblingTooLong => 6,
            ModifyError::BadContext => 7,
            ModifyError::ContextAhead => 8,
        }
    }

    /// The error of number `code`.
    pub fn from_code(code: u8) -> Result<ModifyError, MalformedModify> {
        Ok(match code {
            1 => ModifyError::NotAnInteger,
            2 => ModifyError::Overflow,
            3 => ModifyError::NotAFloat,
            4 => ModifyError::NotFinite,
            5 => ModifyError::TooLong,
            6 => ModifyError::SiblingTooLong,
            7 => ModifyError::BadContext,
            8 => ModifyError::ContextAhead,
            _ => return Err(MalformedModify),
        })
    }
}

fn put_tail(out: &mut Vec<u8>, tag: u8, tail: &[u8]) {
    out.push(tag);
    out.extend_from_slice(tail);
}

fn put_expiry(out: &mut Vec<u8>, expiry: ExpiryChange) {
    match expiry {
        ExpiryChange::Keep => out.push(0),
        ExpiryChange::Clear => out.push(1),
        ExpiryChange::At(at) => put_tail(out, 2, &at.0.to_le_bytes()),
    }
}

/// A context that parses.
fn checked(context: &[u8]) -> Result<&[u8], MalformedModify> {
    CausalContext::decode(context).map(|_| context).map_err(|_| MalformedModify)
}

/// Takes fields off the front of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedModify> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(MalformedModify)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, MalformedModify> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, MalformedModify> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, MalformedModify> {
        self.array().map(i64::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool, MalformedModify> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(MalformedModify),
        }
    }

    fn expiry(&mut self) -> Result<ExpiryChange, MalformedModify> {
        match self.u8()? {
            0 => Ok(ExpiryChange::Keep),
            1 => Ok(ExpiryChange::Clear),
            2 => Ok(ExpiryChange::At(UnixMillis(self.u64()?))),
            _ => Err(MalformedModify),
        }
    }

    fn set_condition(&mut self) -> Result<SetCondition, MalformedModify> {
        [SetCondition::Always, SetCondition::Nx, SetCondition::Xx]
            .get(usize::from(self.u8()?))
            .copied()
            .ok_or(MalformedModify)
    }

    fn expire_condition(&mut self) -> Result<ExpireCondition, MalformedModify> {
        [
            ExpireCondition::Always,
            ExpireCondition::Nx,
            ExpireCondition::Xx,
            ExpireCondition::Gt,
            ExpireCondition::Lt,
            ExpireCondition::XxLt,
        ]
        .get(usize::from(self.u8()?))
        .copied()
        .ok_or(MalformedModify)
    }

    fn context(&mut self) -> Result<&'a [u8], MalformedModify> {
        let length = usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| MalformedModify)?;
        let (context, rest) = self.0.split_at_checked(length).ok_or(MalformedModify)?;
        self.0 = rest;
        checked(context)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn end(&self) -> Result<(), MalformedModify> {
        if self.0.is_empty() { Ok(()) } else { Err(MalformedModify) }
    }
}
