//! `CLIENT …`: what a connection is called, which others there are, and ending them.

pub mod filter;
pub mod line;

use std::sync::atomic::Ordering;

use gyre_protocol::{Args, Reply};

use crate::execute::immediate::Immediate;
use crate::execute::immediate::connection::BAD_CLIENT_NAME;
use crate::execute::immediate::words::{is, is_printable_word, one_of, refusal, shown};
use crate::execute::{Answer, CommandError};
use crate::metrics::CommandIndex;
use crate::session::registry::{ClientEntry, ClientRegistry};
use crate::session::settings::{ReplyMode, SessionSettings};

use filter::Filter;

/// `CLIENT ID`.
pub fn id(settings: &SessionSettings) -> Reply {
    Reply::Integer(i64::try_from(settings.id).unwrap_or(i64::MAX))
}

/// `CLIENT GETNAME`: null when unset.
pub fn getname(settings: &SessionSettings) -> Reply {
    if settings.name.is_empty() { Reply::Null } else { Reply::bulk(settings.name.as_slice()) }
}

/// `CLIENT SETNAME name`; an empty one unsets it.
pub fn setname(settings: &mut SessionSettings, args: Args<'_>) -> Answer {
    if !is_printable_word(args.arg(2)) {
        return Err(BAD_CLIENT_NAME);
    }
    settings.name = args.arg(2).to_vec();
    Ok(Reply::Ok)
}

/// `CLIENT SETINFO LIB-NAME|LIB-VER value`.
pub fn setinfo(settings: &mut SessionSettings, args: Args<'_>) -> Answer {
    let (attribute, value) = (args.arg(2), args.arg(3));
    let target = match () {
        () if is(attribute, "lib-name") => &mut settings.library_name,
        () if is(attribute, "lib-ver") => &mut settings.library_version,
        () => return Err(refusal(format!("ERR Unrecognized option '{}'", shown(attribute)))),
    };
    if !is_printable_word(value) {
        let attribute = shown(attribute);
        return Err(refusal(format!(
            "ERR {attribute} cannot contain spaces, newlines or special characters."
        )));
    }
    *target = value.to_vec();
    Ok(Reply::Ok)
}

/// `CLIENT INFO`.
pub fn info(cx: &Immediate<'_>) -> Reply {
    let mut text = Vec::new();
    line::write(&mut text, cx.client, cx.settings, "client|info", cx.now);
    text.push(b'\n');
    Reply::verbatim(text)
}

/// `CLIENT LIST [TYPE type] [ID id …]`.
pub fn list(cx: &Immediate<'_>, args: Args<'_>) -> Answer {
    let wanted = filter::Listed::parse(args)?;
    let mut text = Vec::new();
    for entry in cx.node.clients.all().iter().filter(|entry| wanted.includes(entry)) {
        if entry.id == cx.settings.id {
            line::write(&mut text, entry, cx.settings, "client|list", cx.now);
        } else {
            let command = CommandIndex::from(entry.last_command.load(Ordering::Relaxed)).name();
            line::write(&mut text, entry, &entry.settings.lock().clone(), command, cx.now);
        }
        text.push(b'\n');
    }
    Ok(Reply::verbatim(text))
}

/// `CLIENT KILL address` and `CLIENT KILL option value …`.
pub fn kill(settings: &mut SessionSettings, clients: &ClientRegistry, args: Args<'_>) -> Answer {
    let (filter, own) = (Filter::parse(args)?, settings.id);
    let mut killed = 0;
    for entry in clients.all().iter().filter(|entry| filter.includes(entry, own)) {
        end(settings, entry);
        killed += 1;
    }
    match killed {
        0 if filter.is_old_form => Err(CommandError::text("ERR No such client")),
        _ if filter.is_old_form => Ok(Reply::Ok),
        killed => Ok(Reply::Integer(killed)),
    }
}

/// Ends a connection: the one at hand once its reply is out, any other at once.
fn end(settings: &mut SessionSettings, entry: &ClientEntry) {
    if entry.id == settings.id {
        settings.close_after_reply = true;
    } else {
        entry.kill();
    }
}

/// `CLIENT REPLY ON|OFF|SKIP`. Only `ON` is answered; the session leaves the reply of the others out, since the
/// mode is no longer [`ReplyMode::On`] when it comes to write it.
pub fn reply(settings: &mut SessionSettings, args: Args<'_>) -> Answer {
    let mode = args.arg(2);
    settings.reply_mode = match settings.reply_mode {
        _ if is(mode, "ON") => ReplyMode::On,
        _ if is(mode, "OFF") => ReplyMode::Off,
        ReplyMode::Off if is(mode, "SKIP") => ReplyMode::Off,
        _ if is(mode, "SKIP") => ReplyMode::SkipNext,
        _ => return Err(CommandError::SYNTAX),
    };
    Ok(Reply::Ok)
}

/// `CLIENT NO-EVICT ON|OFF`.
pub fn no_evict(settings: &mut SessionSettings, args: Args<'_>) -> Answer {
    settings.no_evict = one_of(args.arg(2), "on", "off")?;
    Ok(Reply::Ok)
}

/// `CLIENT NO-TOUCH ON|OFF`.
pub fn no_touch(settings: &mut SessionSettings, args: Args<'_>) -> Answer {
    settings.no_touch = one_of(args.arg(2), "on", "off")?;
    Ok(Reply::Ok)
}

#[cfg(test)]
mod tests {
    use gyre_protocol::OwnedArgs;

    use super::*;
    use crate::execute::immediate::fixtures::{connect, settings};

    fn args(line: &str) -> OwnedArgs {
        line.split_whitespace().collect()
    }

    fn text(answer: Answer) -> String {
        match answer {
            Err(CommandError::Text(text)) => text.into_owned(),
            other => panic!("not an error text: {other:?}"),
        }
    }

    /// Connections 1 to `count`, from 10.0.0.1:1, 10.0.0.1:2, …
    fn connected(count: u16) -> ClientRegistry {
        let clients = ClientRegistry::default();
        for port in 1..=count {
            let own = SessionSettings { id: clients.next_id(), ..settings() };
            connect(&clients, own, port);
        }
        clients
    }

    fn killed(clients: &ClientRegistry) -> Vec<u64> {
        clients.all().iter().filter(|entry| entry.is_killed()).map(|entry| entry.id).collect()
    }

    #[test]
    fn a_name_is_kept_until_it_is_unset() {
        let mut settings = settings();
        assert_eq!(getname(&settings), Reply::Null);
        assert_eq!(setname(&mut settings, args("CLIENT SETNAME me").args()), Ok(Reply::Ok));
        assert_eq!(getname(&settings), Reply::bulk("me"));
        let spaced: OwnedArgs = ["CLIENT", "SETNAME", "a b"].into_iter().collect();
        assert_eq!(setname(&mut settings, spaced.args()), Err(BAD_CLIENT_NAME));
        let empty: OwnedArgs = ["CLIENT", "SETNAME", ""].into_iter().collect();
        assert_eq!(setname(&mut settings, empty.args()), Ok(Reply::Ok));
        assert_eq!(getname(&settings), Reply::Null);
    }

    #[test]
    fn the_library_is_kept_and_checked() {
        let mut settings = settings();
        setinfo(&mut settings, args("CLIENT SETINFO lib-name redis-py").args()).unwrap();
        setinfo(&mut settings, args("CLIENT SETINFO LIB-VER 5.0").args()).unwrap();
        assert_eq!(
            (&settings.library_name[..], &settings.library_version[..]),
            (&b"redis-py"[..], &b"5.0"[..])
        );
        let spaced: OwnedArgs = ["CLIENT", "SETINFO", "lib-ver", "a b"].into_iter().collect();
        assert_eq!(
            text(setinfo(&mut settings, spaced.args())),
            "ERR lib-ver cannot contain spaces, newlines or special characters."
        );
        assert_eq!(
            text(setinfo(&mut settings, args("CLIENT SETINFO foo x").args())),
            "ERR Unrecognized option 'foo'"
        );
    }

    #[test]
    fn the_old_form_of_kill_names_an_address_and_may_be_ones_own() {
        let clients = connected(3);
        let mut own = SessionSettings { id: 2, ..settings() };
        assert_eq!(kill(&mut own, &clients, args("CLIENT KILL 10.0.0.1:1").args()), Ok(Reply::Ok));
        assert_eq!(kill(&mut own, &clients, args("CLIENT KILL 10.0.0.1:2").args()), Ok(Reply::Ok));
        assert_eq!(killed(&clients), [1]);
        assert!(own.close_after_reply);
        assert_eq!(
            text(kill(&mut own, &clients, args("CLIENT KILL 10.0.0.1:9").args())),
            "ERR No such client"
        );
    }

    #[test]
    fn the_new_form_of_kill_counts_and_spares_its_caller() {
        let clients = connected(3);
        let mut own = SessionSettings { id: 2, ..settings() };
        assert_eq!(kill(&mut own, &clients, args("CLIENT KILL TYPE normal").args()), Ok(Reply::Integer(2)));
        assert_eq!(killed(&clients), [1, 3]);
        assert!(!own.close_after_reply);
        let line = "CLIENT KILL LADDR 10.0.0.2:6379 ID 2 SKIPME no";
        assert_eq!(kill(&mut own, &clients, args(line).args()), Ok(Reply::Integer(1)));
        assert!(own.close_after_reply);
        assert_eq!(kill(&mut own, &clients, args("CLIENT KILL ID 99").args()), Ok(Reply::Integer(0)));
    }

    #[test]
    fn skip_does_not_switch_replies_on_again() {
        let mut settings = settings();
        for (line, mode) in [
            ("CLIENT REPLY SKIP", ReplyMode::SkipNext),
            ("CLIENT REPLY off", ReplyMode::Off),
            ("CLIENT REPLY SKIP", ReplyMode::Off),
            ("CLIENT REPLY ON", ReplyMode::On),
        ] {
            assert_eq!(reply(&mut settings, args(line).args()), Ok(Reply::Ok));
            assert_eq!(settings.reply_mode, mode, "{line}");
        }
        assert_eq!(reply(&mut settings, args("CLIENT REPLY maybe").args()), Err(CommandError::SYNTAX));
    }
}
