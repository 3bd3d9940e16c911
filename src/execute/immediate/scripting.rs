//! `FUNCTION …` and `SCRIPT …` over stores that are always empty: what test suites and libraries send to clean up.

use gyre_protocol::{Args, Reply};

use crate::execute::immediate::words::{is, refusal, shown};
use crate::execute::{Answer, CommandError};

/// `FUNCTION FLUSH [ASYNC|SYNC]`.
pub fn function_flush(args: Args<'_>) -> Answer {
    flush(args, "ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
}

/// `SCRIPT FLUSH [ASYNC|SYNC]`.
pub fn script_flush(args: Args<'_>) -> Answer {
    flush(args, "ERR SCRIPT FLUSH only support SYNC|ASYNC option")
}

fn flush(args: Args<'_>, refusal: &'static str) -> Answer {
    match (args.len(), args.arg(2)) {
        (2, _) => Ok(Reply::Ok),
        (3, mode) if is(mode, "SYNC") || is(mode, "ASYNC") => Ok(Reply::Ok),
        _ => Err(CommandError::text(refusal)),
    }
}

/// `FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE]`.
pub fn function_list(args: Args<'_>) -> Answer {
    let (mut with_code, mut named) = (false, false);
    let mut options = args.from(2).into_iter();
    while let Some(option) = options.next() {
        if !with_code && is(option, "WITHCODE") {
            with_code = true;
        } else if !named && is(option, "LIBRARYNAME") {
            named = true;
            options.next().ok_or(CommandError::text("ERR library name argument was not given"))?;
        } else {
            return Err(refusal(format!("ERR Unknown argument {}", shown(option))));
        }
    }
    Ok(Reply::Array(Vec::new()))
}

/// `FUNCTION STATS`.
pub fn function_stats() -> Reply {
    let lua = Reply::map([("libraries_count", Reply::Integer(0)), ("functions_count", Reply::Integer(0))]);
    Reply::map([("running_script", Reply::Null), ("engines", Reply::map([("LUA", lua)]))])
}

/// `SCRIPT EXISTS sha1 …`: no script is known.
pub fn script_exists(args: Args<'_>) -> Reply {
    Reply::Array(args.from(2).iter().map(|_| Reply::Integer(0)).collect())
}

#[cfg(test)]
mod tests {
    use gyre_protocol::OwnedArgs;

    use super::*;

    fn args(line: &str) -> OwnedArgs {
        line.split_whitespace().collect()
    }

    fn text(answer: Answer) -> String {
        match answer {
            Err(CommandError::Text(text)) => text.into_owned(),
            other => panic!("not an error text: {other:?}"),
        }
    }

    #[test]
    fn flushing_the_empty_stores_succeeds_in_both_modes() {
        for line in ["FUNCTION FLUSH", "FUNCTION FLUSH sync", "FUNCTION FLUSH ASYNC"] {
            assert_eq!(function_flush(args(line).args()), Ok(Reply::Ok), "{line}");
        }
        assert_eq!(
            text(function_flush(args("FUNCTION FLUSH now").args())),
            "ERR FUNCTION FLUSH only supports SYNC|ASYNC option"
        );
        assert_eq!(
            text(script_flush(args("SCRIPT FLUSH now").args())),
            "ERR SCRIPT FLUSH only support SYNC|ASYNC option"
        );
    }

    #[test]
    fn function_list_checks_its_options() {
        let list = |line: &str| function_list(args(line).args());
        assert_eq!(list("FUNCTION LIST LIBRARYNAME x* WITHCODE"), Ok(Reply::Array(Vec::new())));
        assert_eq!(text(list("FUNCTION LIST LIBRARYNAME")), "ERR library name argument was not given");
        assert_eq!(text(list("FUNCTION LIST FOO")), "ERR Unknown argument FOO");
        assert_eq!(text(list("FUNCTION LIST WITHCODE WITHCODE")), "ERR Unknown argument WITHCODE");
    }

    #[test]
    fn no_script_exists() {
        assert_eq!(
            script_exists(args("SCRIPT EXISTS a b").args()),
            Reply::Array(vec![Reply::Integer(0), Reply::Integer(0)])
        );
    }
}
