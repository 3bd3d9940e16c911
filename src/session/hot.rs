//! The commands that need no task: GET, SET without a condition, and the INCR family go straight to the coordinator.

use gyre_cluster::modify::Modify;
use gyre_protocol::Args;
use gyre_protocol::command::{Command, CommandId};
use gyre_storage::{KeyRef, UnixMillis};

use crate::execute::options::{self, Condition, ExpiryChange};
use crate::session::pipeline::Access;
use crate::session::render::Render;
use crate::session::{Session, Taken};
use crate::worker::Turn;

/// Starts `command` if it is a hot one. `None`: it is not, or only looks like one (SET with NX), or has an error that
/// the ordinary path words.
pub(super) fn start(
    session: &mut Session,
    command: &'static Command,
    args: Args<'_>,
    turn: &mut Turn<'_>,
) -> Option<Taken> {
    let key = || KeyRef::new(session.settings.db, args.arg(1));
    match command.id {
        CommandId::Get => Some(get(session, command, key(), turn)),
        CommandId::Set => {
            let expiry = blind_set_expiry(args, turn.now.wall)?;
            Some(set(session, command, key(), args.arg(2), expiry, turn))
        }
        CommandId::Incr => Some(add(session, command, key(), 1, turn)),
        CommandId::Decr => Some(add(session, command, key(), -1, turn)),
        CommandId::Incrby => {
            let delta = gyre_storage::parse_integer(args.arg(2))?;
            Some(add(session, command, key(), delta, turn))
        }
        CommandId::Decrby => {
            let delta = gyre_storage::parse_integer(args.arg(2))?.checked_neg()?;
            Some(add(session, command, key(), delta, turn))
        }
        CommandId::Del | CommandId::Unlink if args.len() == 2 => {
            Some(modify(session, command, key(), Access::Modify, &Modify::Delete, turn))
        }
        _ => None,
    }
}

/// What `command` does to which key, for the order of a pipeline.
pub(super) fn access_of(command: &Command, args: Args<'_>, db: u8) -> (u64, Access) {
    let mut keys = command.keys(args);
    match (keys.next(), keys.next()) {
        (Some((only, _)), None) => {
            let hash = KeyRef::new(db, args.arg(only)).hash64();
            (hash, if command.is_write() { Access::Modify } else { Access::Read })
        }
        _ => (0, Access::Barrier),
    }
}

fn get(session: &mut Session, command: &'static Command, key: KeyRef<'_>, turn: &mut Turn<'_>) -> Taken {
    if !session.pipeline.may_begin(key.hash64(), Access::Read) {
        return Taken::Blocked;
    }
    let sequence = session.begin(command, key.hash64(), Access::Read, Render::Value, turn);
    turn.core.read(turn.shell, turn.now, session.tag(sequence), key, session.settings.levels.reading());
    Taken::Yes
}

fn set(
    session: &mut Session,
    command: &'static Command,
    key: KeyRef<'_>,
    value: &[u8],
    expiry: Option<UnixMillis>,
    turn: &mut Turn<'_>,
) -> Taken {
    if !session.pipeline.may_begin(key.hash64(), Access::Blind) {
        return Taken::Blocked;
    }
    let sequence = session.begin(command, key.hash64(), Access::Blind, Render::Ok, turn);
    let (tag, level) = (session.tag(sequence), session.settings.levels.writing());
    // A time that has passed deletes, as in Redis.
    let value = Some(value).filter(|_| expiry.is_none_or(|at| at > turn.now.wall));
    if let Some(op) = turn.core.write(turn.shell, turn.now, tag, key, value, expiry, level) {
        session.acknowledgements.started(sequence, op);
    }
    Taken::Yes
}

fn add(
    session: &mut Session,
    command: &'static Command,
    key: KeyRef<'_>,
    delta: i64,
    turn: &mut Turn<'_>,
) -> Taken {
    modify(session, command, key, Access::Add, &Modify::Add { delta }, turn)
}

fn modify(
    session: &mut Session,
    command: &'static Command,
    key: KeyRef<'_>,
    access: Access,
    modify: &Modify<'_>,
    turn: &mut Turn<'_>,
) -> Taken {
    if !session.pipeline.may_begin(key.hash64(), access) {
        return Taken::Blocked;
    }
    let sequence = session.begin(command, key.hash64(), access, Render::Integer, turn);
    turn.core.modify(turn.shell, turn.now, session.tag(sequence), key, modify, session.settings.levels);
    Taken::Yes
}

/// The expiry of a SET that need not read first; `None` if it must, or is malformed.
fn blind_set_expiry(args: Args<'_>, now: UnixMillis) -> Option<Option<UnixMillis>> {
    if args.len() == 3 {
        return Some(None);
    }
    let options = options::parse_set(args.from(3).iter(), now).ok()?;
    match (options.condition, options.expiry, options.get) {
        (Condition::Always, ExpiryChange::Clear, false) => Some(None),
        (Condition::Always, ExpiryChange::At(at), false) => Some(Some(at)),
        _ => None,
    }
}
