//! `SLOWLOG …`.

use gyre_protocol::{Args, Reply, integer};

use crate::execute::{Answer, CommandError};
use crate::slowlog::{SlowEntry, SlowLog};

/// How many entries `SLOWLOG GET` answers when it is not told.
const COUNT_DEFAULT: usize = 10;

/// `SLOWLOG GET [count]`; -1 means all.
pub fn get(log: &SlowLog, args: Args<'_>) -> Answer {
    let count = match args.get(2).map(integer) {
        None => COUNT_DEFAULT,
        Some(Some(-1)) => usize::MAX,
        Some(given) => given
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(CommandError::text("ERR count should be greater than or equal to -1"))?,
    };
    Ok(Reply::Array(log.latest(count).into_iter().map(entry).collect()))
}

/// `SLOWLOG LEN`.
pub fn len(log: &SlowLog) -> Reply {
    Reply::count(log.len())
}

/// `SLOWLOG RESET`.
pub fn reset(log: &SlowLog) -> Reply {
    log.reset();
    Reply::Ok
}

/// Id, Unix seconds, microseconds, arguments, client address, client name.
fn entry(entry: SlowEntry) -> Reply {
    let number = |value: u64| Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    Reply::Array(vec![
        number(entry.id),
        number(entry.unix_seconds),
        number(entry.micros),
        Reply::Array(entry.arguments.into_iter().map(Reply::Bulk).collect()),
        Reply::text(entry.address.to_string()),
        Reply::Bulk(entry.client_name),
    ])
}

#[cfg(test)]
mod tests {
    use gyre_protocol::OwnedArgs;

    use super::*;

    fn log(entries: usize) -> SlowLog {
        let log = SlowLog::default();
        for _ in 0..entries {
            let words = [&b"get"[..], b"k"];
            log.record(128, 42, 1_700_000_000, words.into_iter(), ([127, 0, 0, 1], 5000).into(), b"app");
        }
        log
    }

    fn got(log: &SlowLog, line: &str) -> Answer {
        get(log, line.split_whitespace().collect::<OwnedArgs>().args())
    }

    fn length(answer: Answer) -> usize {
        match answer {
            Ok(Reply::Array(entries)) => entries.len(),
            other => panic!("not an array: {other:?}"),
        }
    }

    #[test]
    fn get_answers_ten_entries_unless_told() {
        let log = log(12);
        assert_eq!(length(got(&log, "SLOWLOG GET")), 10);
        assert_eq!(length(got(&log, "SLOWLOG GET 3")), 3);
        assert_eq!(length(got(&log, "SLOWLOG GET -1")), 12);
        for line in ["SLOWLOG GET -2", "SLOWLOG GET many"] {
            let refused = CommandError::text("ERR count should be greater than or equal to -1");
            assert_eq!(got(&log, line), Err(refused), "{line}");
        }
    }

    #[test]
    fn an_entry_has_the_six_fields_of_redis() {
        let Ok(Reply::Array(entries)) = got(&log(1), "SLOWLOG GET") else { panic!("an array") };
        assert_eq!(
            entries,
            [Reply::Array(vec![
                Reply::Integer(0),
                Reply::Integer(1_700_000_000),
                Reply::Integer(42),
                Reply::Array(vec![Reply::bulk("get"), Reply::bulk("k")]),
                Reply::text("127.0.0.1:5000"),
                Reply::bulk("app"),
            ])]
        );
    }

    #[test]
    fn reset_empties_it() {
        let log = log(2);
        assert_eq!(len(&log), Reply::Integer(2));
        assert_eq!(reset(&log), Reply::Ok);
        assert_eq!(len(&log), Reply::Integer(0));
    }
}
