//! EXPIRE, PERSIST, GETEX.

use gyre_storage::UnixMillis;

use super::{Change, ExpireCondition, ExpiryChange, Live, ModifyReply, NewRow};

pub(super) fn expire(
    live: Option<Live<'_>>,
    now: UnixMillis,
    at: UnixMillis,
    condition: ExpireCondition,
) -> Change {
    let Some(live) = live else { return Change::none(ModifyReply::Integer(0)) };
    let holds = match (condition, live.expiry) {
        (ExpireCondition::Always, _)
        | (ExpireCondition::Nx | ExpireCondition::Lt, None)
        | (ExpireCondition::Xx, Some(_)) => true,
        (ExpireCondition::Nx, Some(_))
        | (ExpireCondition::Xx | ExpireCondition::Gt | ExpireCondition::XxLt, None) => false,
        (ExpireCondition::Gt, Some(present)) => at > present,
        (ExpireCondition::Lt | ExpireCondition::XxLt, Some(present)) => at < present,
    };
    if !holds {
        return Change::none(ModifyReply::Integer(0));
    }
    Change::write(NewRow::register(live.value.into_owned(), Some(at), now), ModifyReply::Integer(1))
}

pub(super) fn persist(live: Option<Live<'_>>, now: UnixMillis) -> Change {
    match live {
        Some(Live { value, expiry: Some(_) }) => {
            Change::write(NewRow::register(value.into_owned(), None, now), ModifyReply::Integer(1))
        }
        _ => Change::none(ModifyReply::Integer(0)),
    }
}

/// GETEX: a change that would leave the expiry as it is writes nothing.
pub(super) fn get_expire(live: Option<Live<'_>>, now: UnixMillis, expiry: ExpiryChange) -> Change {
    let Some(live) = live else { return Change::none(ModifyReply::Nil) };
    let value = live.value.into_owned();
    let new_expiry = match expiry {
        ExpiryChange::Keep => live.expiry,
        ExpiryChange::Clear => None,
        ExpiryChange::At(at) => Some(at),
    };
    let row = (new_expiry != live.expiry).then(|| NewRow::register(value.clone(), new_expiry, now));
    Change { row, reply: ModifyReply::Bytes(value), crowd: None }
}
