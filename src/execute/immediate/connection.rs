//! `PING`, `ECHO`, `QUIT`, `HELLO`, `AUTH`, `RESET`, `SELECT`: what a connection says about itself.

use gyre_protocol::{Args, Reply, Resp, integer};

use crate::config::Config;
use crate::execute::immediate::REDIS_VERSION;
use crate::execute::immediate::words::{is, is_printable_word, refusal, shown};
use crate::execute::{Answer, CommandError};
use crate::session::settings::{ReplyMode, SessionSettings};

const WRONG_PASSWORD: CommandError =
    CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");
const NO_PASSWORD_CONFIGURED: CommandError = CommandError::text(
    "ERR AUTH <password> called without any password configured for the default user. \
     Are you sure your configuration is correct?",
);
const HELLO_NEEDS_AUTH: CommandError = CommandError::text(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
     <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
);
/// Shared with `CLIENT SETNAME`.
pub const BAD_CLIENT_NAME: CommandError =
    CommandError::text("ERR Client names cannot contain spaces, newlines or special characters.");

/// `PING [message]`.
pub fn ping(args: Args<'_>) -> Answer {
    match args.len() {
        0 | 1 => Ok(Reply::simple("PONG")),
        2 => Ok(Reply::bulk(args.arg(1))),
        _ => Err(CommandError::text("ERR wrong number of arguments for 'ping' command")),
    }
}

/// `ECHO message`.
pub fn echo(args: Args<'_>) -> Reply {
    Reply::bulk(args.arg(1))
}

/// `QUIT`.
pub fn quit(settings: &mut SessionSettings) -> Reply {
    settings.close_after_reply = true;
    Reply::Ok
}

/// `SELECT index`.
pub fn select(settings: &mut SessionSettings, config: &Config, args: Args<'_>) -> Answer {
    let index = integer(args.arg(1)).ok_or(CommandError::NOT_AN_INTEGER)?;
    let known = usize::try_from(index).is_ok_and(|index| index < config.databases);
    match u8::try_from(index) {
        Ok(db) if known => {
            settings.db = db;
            Ok(Reply::Ok)
        }
        _ => Err(CommandError::text("ERR DB index is out of range")),
    }
}

/// `RESET`: the connection as it was when it was accepted, except for its library name.
pub fn reset(settings: &mut SessionSettings, config: &Config) -> Reply {
    settings.db = 0;
    settings.resp = Resp::Two;
    settings.authenticated = config.requirepass.is_empty();
    settings.name.clear();
    settings.levels = config.levels();
    settings.levels_before_readonly = None;
    settings.reply_mode = ReplyMode::On;
    settings.no_evict = false;
    settings.no_touch = false;
    Reply::simple("RESET")
}

/// `AUTH [user] password`. The only user is `default`.
pub fn auth(settings: &mut SessionSettings, config: &Config, args: Args<'_>) -> Answer {
    let (user, password) = match args.len() {
        2 if config.requirepass.is_empty() => return Err(NO_PASSWORD_CONFIGURED),
        2 => (&b"default"[..], args.arg(1)),
        3 => (args.arg(1), args.arg(2)),
        _ => return Err(CommandError::SYNTAX),
    };
    authenticate(settings, config, user, password)?;
    Ok(Reply::Ok)
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`. Nothing changes unless all of it is in order.
pub fn hello(settings: &mut SessionSettings, config: &Config, args: Args<'_>) -> Answer {
    let hello = Hello::parse(args)?;
    if let Some((user, password)) = hello.auth {
        authenticate(settings, config, user, password)?;
    }
    if !settings.authenticated {
        return Err(HELLO_NEEDS_AUTH);
    }
    if let Some(name) = hello.name {
        settings.name = name.to_vec();
    }
    if let Some(resp) = hello.resp {
        settings.resp = resp;
    }
    Ok(greeting(settings, config))
}

fn authenticate(
    settings: &mut SessionSettings,
    config: &Config,
    user: &[u8],
    password: &[u8],
) -> Result<(), CommandError> {
    let accepted = config.requirepass.is_empty() || config.requirepass.matches(password);
    if user != b"default" || !accepted {
        return Err(WRONG_PASSWORD);
    }
    settings.authenticated = true;
    Ok(())
}

fn greeting(settings: &SessionSettings, config: &Config) -> Reply {
    let proto = match settings.resp {
        Resp::Two => 2,
        Resp::Three => 3,
    };
    Reply::map([
        ("server", Reply::text("redis")),
        ("version", Reply::text(REDIS_VERSION)),
        ("proto", Reply::Integer(proto)),
        ("id", Reply::Integer(i64::try_from(settings.id).unwrap_or(i64::MAX))),
        ("mode", Reply::text(config.client_mode.name())),
        ("role", Reply::text("master")),
        ("modules", Reply::Array(Vec::new())),
    ])
}

/// The arguments of `HELLO`.
#[derive(Debug, Default, PartialEq)]
struct Hello<'a> {
    resp: Option<Resp>,
    auth: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    fn parse(args: Args<'a>) -> Result<Hello<'a>, CommandError> {
        let mut hello = Hello::default();
        if let Some(version) = args.get(1) {
            hello.resp = Some(match integer(version) {
                Some(2) => Resp::Two,
                Some(3) => Resp::Three,
                Some(_) => return Err(CommandError::text("NOPROTO unsupported protocol version")),
                None => {
                    return Err(CommandError::text("ERR Protocol version is not an integer or out of range"));
                }
            });
        }
        let mut at = 2;
        while let Some(option) = args.get(at) {
            if let (true, Some(user), Some(password)) =
                (is(option, "AUTH"), args.get(at + 1), args.get(at + 2))
            {
                hello.auth = Some((user, password));
                at += 3;
            } else if let (true, Some(name)) = (is(option, "SETNAME"), args.get(at + 1)) {
                if !is_printable_word(name) {
                    return Err(BAD_CLIENT_NAME);
                }
                hello.name = Some(name);
                at += 2;
            } else {
                return Err(refusal(format!("ERR Syntax error in HELLO option '{}'", shown(option))));
            }
        }
        Ok(hello)
    }
}

#[cfg(test)]
mod tests {
    use gyre_cluster::level::Consistency;
    use gyre_protocol::OwnedArgs;

    use super::*;
    use crate::config::Secret;
    use crate::execute::immediate::fixtures::settings;

    type Handler = fn(&mut SessionSettings, &Config, Args<'_>) -> Answer;

    fn run(handler: Handler, settings: &mut SessionSettings, config: &Config, line: &str) -> Answer {
        let args: OwnedArgs = line.split_whitespace().collect();
        handler(settings, config, args.args())
    }

    fn error(answer: Answer) -> String {
        match answer {
            Err(CommandError::Text(text)) => text.into_owned(),
            other => panic!("not an error text: {other:?}"),
        }
    }

    fn protected() -> (SessionSettings, Config) {
        let config = Config { requirepass: Secret::new("secret"), ..Config::default() };
        (SessionSettings { authenticated: false, ..settings() }, config)
    }

    fn greeted(reply: &Reply, field: &str) -> Reply {
        let Reply::Map(pairs) = reply else { panic!("HELLO answers a map") };
        pairs.iter().find(|(name, _)| *name == Reply::text(field)).unwrap().1.clone()
    }

    #[test]
    fn ping_answers_pong_or_its_message() {
        let answer = |words: &[&str]| ping(words.iter().collect::<OwnedArgs>().args());
        assert_eq!(answer(&["PING"]), Ok(Reply::simple("PONG")));
        assert_eq!(answer(&["PING", ""]), Ok(Reply::bulk("")));
        assert_eq!(error(answer(&["PING", "a", "b"])), "ERR wrong number of arguments for 'ping' command");
    }

    #[test]
    fn select_takes_the_databases_there_are() {
        let (mut settings, config) = (settings(), Config::default());
        assert_eq!(run(select, &mut settings, &config, "SELECT 15"), Ok(Reply::Ok));
        assert_eq!(settings.db, 15);
        for (line, text) in [
            ("SELECT 16", "ERR DB index is out of range"),
            ("SELECT -1", "ERR DB index is out of range"),
            ("SELECT 256", "ERR DB index is out of range"),
            ("SELECT one", "ERR value is not an integer or out of range"),
        ] {
            assert_eq!(error(run(select, &mut settings, &config, line)), text);
        }
        assert_eq!(settings.db, 15);
    }

    #[test]
    fn hello_refuses_as_redis_does_and_changes_nothing() {
        let (mut settings, config) = (settings(), Config::default());
        for (line, text) in [
            ("HELLO 4", "NOPROTO unsupported protocol version"),
            ("HELLO 1 AUTH a b", "NOPROTO unsupported protocol version"),
            ("HELLO three", "ERR Protocol version is not an integer or out of range"),
            ("HELLO 3 foo", "ERR Syntax error in HELLO option 'foo'"),
            ("HELLO 3 AUTH default", "ERR Syntax error in HELLO option 'AUTH'"),
            ("HELLO 3 SETNAME a b", "ERR Syntax error in HELLO option 'b'"),
            ("HELLO 3 AUTH other x", "WRONGPASS invalid username-password pair or user is disabled."),
        ] {
            assert_eq!(error(run(hello, &mut settings, &config, line)), text);
        }
        let spaced: OwnedArgs = ["HELLO", "3", "SETNAME", "a b"].into_iter().collect();
        assert_eq!(hello(&mut settings, &config, spaced.args()), Err(BAD_CLIENT_NAME));
        assert_eq!((settings.resp, settings.name.as_slice()), (Resp::Two, &b""[..]));
    }

    #[test]
    fn hello_switches_protocol_and_names_the_connection() {
        let (mut settings, config) = (settings(), Config::default());
        let reply = run(hello, &mut settings, &config, "hello 3 setname me auth default any").unwrap();
        assert_eq!((settings.resp, settings.name.as_slice()), (Resp::Three, &b"me"[..]));
        assert_eq!(greeted(&reply, "proto"), Reply::Integer(3));
        assert_eq!(greeted(&reply, "id"), Reply::Integer(7));
        assert_eq!(greeted(&reply, "mode"), Reply::text("standalone"));
        let reply = run(hello, &mut settings, &config, "HELLO").unwrap();
        assert_eq!(greeted(&reply, "proto"), Reply::Integer(3), "HELLO alone keeps the protocol");
    }

    #[test]
    fn a_password_must_be_given_before_hello_answers() {
        let (mut settings, config) = protected();
        assert!(
            error(run(hello, &mut settings, &config, "HELLO 3")).starts_with("NOAUTH HELLO must be called")
        );
        assert!(
            error(run(hello, &mut settings, &config, "HELLO 3 AUTH default no")).starts_with("WRONGPASS")
        );
        assert!(!settings.authenticated);
        assert!(run(hello, &mut settings, &config, "HELLO 3 AUTH default secret").is_ok());
        assert!(settings.authenticated);
    }

    #[test]
    fn auth_accepts_the_default_user_with_the_password_only() {
        let (mut settings, config) = protected();
        for line in ["AUTH wrong", "AUTH other secret", "AUTH default wrong", "AUTH secre"] {
            assert!(error(run(auth, &mut settings, &config, line)).starts_with("WRONGPASS"), "{line}");
            assert!(!settings.authenticated);
        }
        assert_eq!(error(run(auth, &mut settings, &config, "AUTH a b c")), "ERR syntax error");
        assert_eq!(run(auth, &mut settings, &config, "AUTH secret"), Ok(Reply::Ok));
        assert!(settings.authenticated);
        let (mut settings, config) = protected();
        assert_eq!(run(auth, &mut settings, &config, "AUTH default secret"), Ok(Reply::Ok));
    }

    #[test]
    fn auth_without_a_configured_password_says_so() {
        let (mut settings, config) = (settings(), Config::default());
        let text = error(run(auth, &mut settings, &config, "AUTH x"));
        assert!(text.starts_with("ERR AUTH <password> called without any password configured"));
        assert_eq!(run(auth, &mut settings, &config, "AUTH default x"), Ok(Reply::Ok));
    }

    #[test]
    fn reset_forgets_everything_but_the_library() {
        let (mut settings, config) = protected();
        settings.authenticated = true;
        settings.db = 3;
        settings.resp = Resp::Three;
        settings.name = b"me".to_vec();
        settings.library_name = b"lib".to_vec();
        settings.levels.read = Consistency::All;
        settings.reply_mode = ReplyMode::Off;
        assert_eq!(reset(&mut settings, &config), Reply::simple("RESET"));
        assert_eq!((settings.db, settings.resp, settings.authenticated), (0, Resp::Two, false));
        assert_eq!((settings.name.as_slice(), settings.library_name.as_slice()), (&b""[..], &b"lib"[..]));
        assert_eq!(settings.levels.read, config.read_consistency);
        assert_eq!(settings.reply_mode, ReplyMode::On);
    }
}
