//! SET with conditions, GETDEL, and the deletions.

use gyre_storage::UnixMillis;

use super::{Change, ExpiryChange, Live, ModifyReply, NewRow, SetCondition};

/// SET: the reply with `get` is the old value whether or not the condition held, as in Redis 7.
pub(super) fn set(
    live: Option<&Live<'_>>,
    now: UnixMillis,
    value: &[u8],
    condition: SetCondition,
    expiry: ExpiryChange,
    get: bool,
) -> Change {
    let holds = match condition {
        SetCondition::Always => true,
        SetCondition::Nx => live.is_none(),
        SetCondition::Xx => live.is_some(),
    };
    let reply = match (get, live) {
        (true, Some(old)) => ModifyReply::Bytes(old.value.to_vec()),
        (false, _) if holds => ModifyReply::Done,
        _ => ModifyReply::Nil,
    };
    if !holds {
        return Change::none(reply);
    }
    let expiry = match expiry {
        ExpiryChange::Keep => live.and_then(|live| live.expiry),
        ExpiryChange::Clear => None,
        ExpiryChange::At(at) => Some(at),
    };
    Change::write(NewRow::register(value.to_vec(), expiry, now), reply)
}

pub(super) fn get_delete(live: Option<Live<'_>>) -> Change {
    match live {
        Some(live) => Change::write(NewRow::tombstone(), ModifyReply::Bytes(live.value.into_owned())),
        None => Change::none(ModifyReply::Nil),
    }
}

/// A tombstone and 1 if `holds`, else nothing and 0.
pub(super) fn delete_if(holds: bool) -> Change {
    if holds {
        Change::write(NewRow::tombstone(), ModifyReply::Integer(1))
    } else {
        Change::none(ModifyReply::Integer(0))
    }
}
