//! SLOWLOG: the last commands that took long, with their arguments cut short.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::Config;

/// How many arguments an entry keeps, as in Redis.
const ARGUMENTS_MAX: usize = 32;
/// How many bytes of an argument an entry keeps, as in Redis.
const ARGUMENT_BYTES_MAX: usize = 128;
/// What stands for the arguments of a hot command (GET, SET, INCR, DECR, INCRBY, DECRBY, DEL of one key).
pub const NOT_KEPT: &[u8] = b"(arguments not kept)";
/// What stands for a password.
const REDACTED: &[u8] = b"(redacted)";

/// One slow command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowEntry {
    /// Increases from entry to entry, from 0 at the start of the node; a reset does not take it back.
    pub id: u64,
    /// When the command ended, Unix seconds.
    pub unix_seconds: u64,
    /// How long it took, from its arrival to its answer.
    pub micros: u64,
    /// Its name and arguments, at most 32 of at most 128 bytes and a note of what was cut off.
    pub arguments: Vec<Vec<u8>>,
    /// The client's address.
    pub address: SocketAddr,
    /// The client's `CLIENT SETNAME`.
    pub client_name: Vec<u8>,
}

/// The ring of slow commands. Shared by the workers; locked only for a command that was slow.
#[derive(Debug, Default)]
pub struct SlowLog {
    next_id: AtomicU64,
    entries: Mutex<VecDeque<SlowEntry>>,
}

/// Whether a command of `micros` belongs into SLOWLOG.
#[inline]
pub fn is_slow(config: &Config, micros: u64) -> bool {
    u64::try_from(config.slowlog_log_slower_than_micros).is_ok_and(|threshold| micros >= threshold)
}

impl SlowLog {
    /// Adds a command, and drops the oldest entries beyond `entries_max` (`slowlog-max-len`).
    pub fn record<'a>(
        &self,
        entries_max: usize,
        micros: u64,
        unix_seconds: u64,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
        address: SocketAddr,
        client_name: &[u8],
    ) {
        let arguments = shorten(arguments);
        let mut entries = self.entries.lock();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let client_name = client_name.to_vec();
        entries.push_front(SlowEntry { id, unix_seconds, micros, arguments, address, client_name });
        entries.truncate(entries_max);
    }

    /// The newest `count` entries, the newest first.
    pub fn latest(&self, count: usize) -> Vec<SlowEntry> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `SLOWLOG RESET`.
    pub fn reset(&self) {
        self.entries.lock().clear();
    }
}

/// The arguments as Redis logs them: `... (3 more arguments)`, `... (7 more bytes)`, and no passwords.
fn shorten<'a>(arguments: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let count = arguments.len();
    let kept = if count > ARGUMENTS_MAX { ARGUMENTS_MAX - 1 } else { count };
    let mut passwords = Passwords::default();
    let mut out: Vec<Vec<u8>> = Vec::with_capacity(kept + 1);
    for argument in arguments.take(kept) {
        out.push(if passwords.is_next(argument) { REDACTED.to_vec() } else { cut(argument) });
    }
    if count > kept {
        out.push(format!("... ({} more arguments)", count - kept).into_bytes());
    }
    out
}

fn cut(argument: &[u8]) -> Vec<u8> {
    match argument.split_at_checked(ARGUMENT_BYTES_MAX) {
        Some((start, rest)) if !rest.is_empty() => {
            let mut short = start.to_vec();
            short.extend_from_slice(format!("... ({} more bytes)", rest.len()).as_bytes());
            short
        }
        _ => argument.to_vec(),
    }
}

/// Finds the passwords among the arguments of AUTH, `HELLO … AUTH` and `CONFIG SET`, one argument after another.
#[derive(Default)]
enum Passwords {
    #[default]
    Start,
    Nowhere,
    Everywhere,
    Hello,
    HelloAuth(u8),
    Config,
    ConfigName,
    ConfigValue(bool),
}

impl Passwords {
    fn is_next(&mut self, argument: &[u8]) -> bool {
        let is = |word: &str| argument.eq_ignore_ascii_case(word.as_bytes());
        let (next, secret) = match self {
            Passwords::Start if is("auth") => (Passwords::Everywhere, false),
            Passwords::Start if is("hello") => (Passwords::Hello, false),
            Passwords::Start if is("config") => (Passwords::Config, false),
            Passwords::Start | Passwords::Nowhere => (Passwords::Nowhere, false),
            Passwords::Everywhere => (Passwords::Everywhere, true),
            Passwords::Hello if is("auth") => (Passwords::HelloAuth(2), false),
            Passwords::Hello | Passwords::HelloAuth(0) => (Passwords::Hello, false),
            Passwords::HelloAuth(left) => (Passwords::HelloAuth(*left - 1), true),
            Passwords::Config if is("set") => (Passwords::ConfigName, false),
            Passwords::Config => (Passwords::Nowhere, false),
            Passwords::ConfigName => {
                let secret = is("requirepass") || is("cluster-secret") || is("masterauth");
                (Passwords::ConfigValue(secret), false)
            }
            Passwords::ConfigValue(secret) => (Passwords::ConfigName, *secret),
        };
        *self = next;
        secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "127.0.0.1:5000";

    fn record(log: &SlowLog, arguments: &[&[u8]]) {
        log.record(3, 10, 1_700_000_000, arguments.iter().copied(), CLIENT.parse().unwrap(), b"app");
    }

    fn shown(arguments: &[&str]) -> String {
        let words = shorten(arguments.iter().map(|word| word.as_bytes()));
        words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_newest_entries_stay_and_ids_go_on_after_a_reset() {
        let log = SlowLog::default();
        for key in [b"a", b"b", b"c", b"d"] {
            record(&log, &[b"get", key]);
        }
        let ids: Vec<u64> = log.latest(10).iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [3, 2, 1]);
        assert_eq!(log.latest(1)[0].arguments, [b"get".to_vec(), b"d".to_vec()]);
        log.reset();
        assert!(log.is_empty());
        record(&log, &[b"ping"]);
        assert_eq!(log.latest(10)[0].id, 4);
    }

    #[test]
    fn a_length_of_zero_keeps_nothing() {
        let log = SlowLog::default();
        log.record(0, 1, 1, [&b"ping"[..]].into_iter(), CLIENT.parse().unwrap(), b"");
        assert_eq!(log.len(), 0);
    }

    #[test]
    fn long_arguments_and_long_lists_are_cut_as_in_redis() {
        let long = vec![b'x'; 130];
        let words = shorten([&b"set"[..], b"k", &long].into_iter());
        assert_eq!(words[2], [&[b'x'; 128][..], b"... (2 more bytes)"].concat());
        let exact = vec![b'x'; 128];
        assert_eq!(shorten([&exact[..]].into_iter())[0], exact);

        let many = vec![&b"k"[..]; 33];
        let words = shorten(many.iter().copied());
        assert_eq!(words.len(), 32);
        assert_eq!(words[31], b"... (2 more arguments)");
        assert_eq!(shorten(many.iter().take(32).copied()).len(), 32);
    }

    #[test]
    fn passwords_never_enter_the_log() {
        assert_eq!(shown(&["AUTH", "user", "pass"]), "AUTH (redacted) (redacted)");
        assert_eq!(
            shown(&["hello", "3", "AUTH", "user", "pass", "SETNAME", "me"]),
            "hello 3 AUTH (redacted) (redacted) SETNAME me"
        );
        assert_eq!(
            shown(&["config", "set", "maxclients", "5", "requirepass", "pass"]),
            "config set maxclients 5 requirepass (redacted)"
        );
        assert_eq!(shown(&["set", "auth", "requirepass"]), "set auth requirepass");
    }

    #[test]
    fn the_threshold_may_be_all_or_none() {
        let with = |threshold| Config { slowlog_log_slower_than_micros: threshold, ..Config::default() };
        assert!(is_slow(&with(0), 0));
        assert!(!is_slow(&with(-1), u64::MAX));
        assert!(is_slow(&with(10), 10) && !is_slow(&with(10), 9));
    }
}
