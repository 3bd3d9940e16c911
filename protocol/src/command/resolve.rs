//! From a request to its row, or to Redis's words about why there is none.

use super::{Command, lookup};
use crate::reply::Reply;
use crate::request::Args;

/// Bytes of a client's text that an error repeats.
const ECHO_BYTES_MAX: usize = 128;

/// The row of the command, or subcommand, that `args` names, with the right number of arguments.
///
/// # Errors
/// The error reply: unknown command, unknown subcommand or wrong number of arguments. The connection stays.
#[inline]
pub fn resolve(args: Args<'_>) -> Result<&'static Command, Reply> {
    let Some(mut command) = lookup(args.arg(0)) else {
        return Err(unknown_command(args));
    };
    if !command.subcommands.is_empty() && args.len() > 1 {
        command = match command.subcommand(args.arg(1)) {
            Some(subcommand) => subcommand,
            None => return Err(unknown_subcommand(args)),
        };
    }
    if command.accepts(args.len()) { Ok(command) } else { Err(wrong_arity(command)) }
}

#[cold]
fn unknown_command(args: Args<'_>) -> Reply {
    let mut shown = String::new();
    for arg in args.from(1) {
        if shown.len() >= ECHO_BYTES_MAX {
            break;
        }
        let echo = echo(arg, ECHO_BYTES_MAX - shown.len());
        shown.push('\'');
        shown.push_str(&echo);
        shown.push_str("' ");
    }
    let name = echo(args.arg(0), ECHO_BYTES_MAX);
    Reply::Error(format!("ERR unknown command '{name}', with args beginning with: {shown}").into())
}

#[cold]
fn unknown_subcommand(args: Args<'_>) -> Reply {
    let container = echo(args.arg(0), ECHO_BYTES_MAX).to_ascii_uppercase();
    let name = echo(args.arg(1), ECHO_BYTES_MAX);
    Reply::Error(format!("ERR unknown subcommand '{name}'. Try {container} HELP.").into())
}

/// The error for a request with too few or too many arguments.
#[cold]
fn wrong_arity(command: &Command) -> Reply {
    Reply::Error(format!("ERR wrong number of arguments for '{}' command", command.name).into())
}

/// The start of a client's text up to a NUL, since Redis prints C strings.
fn echo(text: &[u8], bytes_max: usize) -> String {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text.get(..bytes_max).unwrap_or(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::resolve;
    use crate::command::CommandId;
    use crate::reply::Reply;
    use crate::request::OwnedArgs;

    fn resolved(words: &[&str]) -> Result<CommandId, String> {
        let owned: OwnedArgs = words.iter().collect();
        resolve(owned.args()).map(|command| command.id).map_err(|reply| match reply {
            Reply::Error(text) => text.into_owned(),
            other => panic!("{other:?} is no error"),
        })
    }

    #[test]
    fn commands_and_subcommands_are_found() {
        assert_eq!(resolved(&["get", "k"]), Ok(CommandId::Get));
        assert_eq!(resolved(&["Config", "GeT", "*"]), Ok(CommandId::ConfigGet));
        assert_eq!(resolved(&["COMMAND"]), Ok(CommandId::Command));
        assert_eq!(resolved(&["CLIENT", "no-evict", "on"]), Ok(CommandId::ClientNoEvict));
    }

    #[test]
    fn errors_are_in_the_words_of_redis() {
        let text = |words: &[&str]| resolved(words).unwrap_err();
        assert_eq!(text(&["foo", "a", "b"]), "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
        assert_eq!(text(&["foo"]), "ERR unknown command 'foo', with args beginning with: ");
        assert_eq!(text(&["get"]), "ERR wrong number of arguments for 'get' command");
        assert_eq!(text(&["get", "a", "b"]), "ERR wrong number of arguments for 'get' command");
        assert_eq!(text(&["config"]), "ERR wrong number of arguments for 'config' command");
        assert_eq!(text(&["CONFIG", "SET", "a"]), "ERR wrong number of arguments for 'config|set' command");
        assert_eq!(text(&["client", "Nope"]), "ERR unknown subcommand 'Nope'. Try CLIENT HELP.");
    }

    #[test]
    fn an_error_repeats_no_more_than_128_bytes_of_each_kind() {
        let long = "x".repeat(200);
        let expected = format!(
            "ERR unknown command '{}', with args beginning with: '{}' '{}' ",
            "x".repeat(128),
            "y".repeat(100),
            "x".repeat(25)
        );
        assert_eq!(resolved(&[&long, &"y".repeat(100), &long, "z"]).unwrap_err(), expected);
    }
}
