//! The shared workload (`compat/README.md` lists the cases), written once over [`Face`].

mod keys;
mod values;
mod wire;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::face::{Answer, Face, Reply};
use crate::job::Job;

const CASE_SECONDS: u64 = 40;

/// What a case returns: the text says what was expected and what came.
type Done = Result<(), String>;

/// Calls a command given as words.
macro_rules! call {
    ($client:expr, $($word:expr),+ $(,)?) => {
        $client.call(&[$(AsRef::<[u8]>::as_ref(&$word)),+]).await
    };
}
use call;

/// Runs the job's cases with the client `F`, one connection each, and prints a line for each.
pub async fn run<F: Face>(job: &Job) {
    for case in &job.cases {
        let started = Instant::now();
        let limit = Duration::from_secs(CASE_SECONDS);
        let result = tokio::time::timeout(limit, run_case::<F>(job, case)).await;
        let result = result.unwrap_or_else(|_| Err(format!("the case took more than {CASE_SECONDS} s")));
        job.report(case, result, started.elapsed());
    }
}

async fn run_case<F: Face>(job: &Job, case: &str) -> Done {
    let mut c = F::open(job, &job.entry, 0).await?;
    let result = match case {
        "connect" => wire::connect(&mut c, job).await,
        "set" => values::set(&mut c, job).await,
        "strings" => values::strings(&mut c, job).await,
        "binary" => values::binary(&mut c, job).await,
        "empty" => values::empty(&mut c, job).await,
        "unicode" => values::unicode(&mut c, job).await,
        "1mib" => values::big_value(&mut c, &job.key(case, ""), 1 << 20).await,
        "64mib" => values::big_value(&mut c, &job.key(case, ""), 64 << 20).await,
        "counters" => values::counters(&mut c, job).await,
        "expiry" => keys::expiry(&mut c, job).await,
        "mget-mset" => keys::mget(&mut c, job).await,
        "del-exists" => keys::del_exists(&mut c, job).await,
        "scan" => keys::scan(&mut c, job).await,
        "pipeline" => wire::pipeline(&mut c, job).await,
        "errors" => wire::errors(&mut c, job).await,
        "unknown" => wire::unknown(&mut c).await,
        "reconnect" => wire::reconnect(&mut c, job).await,
        "databases" => wire::databases(&mut c, job).await,
        "nodes" => wire::nodes::<F>(job).await,
        other => Err(format!("no such case: {other}")),
    };
    c.close().await;
    result
}

/// Fails unless the answer is this reply.
fn want(answer: Answer, expected: impl Into<Expected>, what: &str) -> Done {
    let (answer, expected) = (answer.map_err(|error| format!("{what}: {error}"))?, expected.into().0);
    if answer == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {}, got {}", short(&expected), short(&answer)))
}

/// Fails unless the answer is an integer of this range.
fn within(answer: Answer, low: i64, high: i64, what: &str) -> Done {
    match answer {
        Ok(Reply::Int(n)) if (low..=high).contains(&n) => Ok(()),
        other => Err(format!("{what}: expected {low}..{high}, got {other:?}")),
    }
}

/// Fails unless the answer is an error with this text.
fn refused(answer: Answer, part: &str) -> Done {
    match answer {
        Err(error) if error.contains(part) => Ok(()),
        other => Err(format!("expected an error {part:?}, got {other:?}")),
    }
}

/// Fails with `what` unless `holds`.
fn ensure(holds: bool, what: impl Into<String>) -> Done {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// A reply that a test expects, made from a literal.
struct Expected(Reply);

impl From<i64> for Expected {
    fn from(n: i64) -> Self {
        Expected(Reply::Int(n))
    }
}

impl From<&str> for Expected {
    fn from(text: &str) -> Self {
        Expected(Reply::text(text))
    }
}

impl From<&[u8]> for Expected {
    fn from(bytes: &[u8]) -> Self {
        Expected(Reply::text(bytes))
    }
}

impl From<Reply> for Expected {
    fn from(reply: Reply) -> Self {
        Expected(reply)
    }
}

fn short(reply: &Reply) -> String {
    match reply {
        Reply::Text(bytes) if bytes.len() > 100 => format!("{} bytes", bytes.len()),
        Reply::Text(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        other => format!("{other:?}").chars().take(160).collect(),
    }
}

/// Seconds since 1970.
fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_secs()).expect("seconds fit")
}
