//! `TIME`, `DEBUG`: small answers about the server itself.

use std::time::Duration;

use gyre_protocol::Reply;

use crate::execute::{Answer, CommandError};

const DEBUG: CommandError = CommandError::text(
    "ERR DEBUG command not allowed. It exists to crash, block and corrupt a server in tests, and Gyre does not have it.",
);

/// `TIME`: seconds, and microseconds of the second, as bulk strings; `since_epoch` is the wall clock.
pub fn time(since_epoch: Duration) -> Reply {
    Reply::Array(vec![
        Reply::text(since_epoch.as_secs().to_string()),
        Reply::text(since_epoch.subsec_micros().to_string()),
    ])
}

/// `DEBUG …`: refused, whatever it asks for.
pub fn debug() -> Answer {
    Err(DEBUG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_two_bulk_strings() {
        let reply = time(Duration::from_micros(1_700_000_000_000_042));
        assert_eq!(reply, Reply::Array(vec![Reply::text("1700000000"), Reply::text("42")]));
    }
}
