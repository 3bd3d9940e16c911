//! The command line of a runner, and the lines it prints.

use std::time::Duration;

const DETAIL_CHARS_MAX: usize = 500;

/// What the orchestrator asks of one runner.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The client's name in the matrix.
    pub client: String,
    /// The node to connect to, `host:port`.
    pub entry: String,
    /// Every node, `host:port`.
    pub nodes: Vec<String>,
    /// The cases to run, in order.
    pub cases: Vec<String>,
    /// What every key of this run begins with.
    pub prefix: String,
    /// How many keys and commands the large cases use.
    pub many: usize,
    /// Whether the servers belong to this run, so that a database may be flushed.
    pub flush: bool,
}

impl Job {
    /// Parses `--name value` pairs and `--flush`; names it does not use are for runners of other clients.
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Job {
        let mut job = Job { many: 10_000, ..Job::default() };
        let list = |value: String| value.split(',').map(str::to_owned).collect();
        while let Some(name) = arguments.next() {
            if name == "--flush" {
                job.flush = true;
                continue;
            }
            let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
            match name.as_str() {
                "--client" => job.client = value,
                "--entry" => job.entry = value,
                "--nodes" => job.nodes = list(value),
                "--cases" => job.cases = list(value),
                "--prefix" => job.prefix = value,
                "--many" => job.many = value.parse().expect("--many is a number"),
                _ => {}
            }
        }
        job
    }

    /// A key of this run and case; one case's keys share a hash tag, so that cluster drivers take them.
    pub fn key(&self, case: &str, name: impl std::fmt::Display) -> String {
        format!("{{{}:{case}}}:{name}", self.prefix)
    }

    /// Like `key`, but without a tag: such keys lie in different slots.
    pub fn spread(&self, case: &str, name: impl std::fmt::Display) -> String {
        format!("{}:{case}:{name}", self.prefix)
    }

    /// Prints the JSON line of a case.
    pub fn report(&self, case: &str, result: Result<(), String>, took: Duration) {
        let ok = result.is_ok();
        let detail: String = result.err().unwrap_or_default().chars().take(DETAIL_CHARS_MAX).collect();
        println!(
            r#"{{"client": "{}", "case": "{case}", "ok": {ok}, "detail": "{}", "ms": {}}}"#,
            self.client,
            escape(&detail),
            took.as_millis()
        );
    }
}

/// `host:port` as its two parts.
pub fn split(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').expect("an address is host:port");
    (host, port.parse().expect("a port is a number"))
}

/// Text inside a JSON string.
fn escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c if c.is_control() => format!("\\u{:04x}", u32::from(c)).chars().collect(),
            c => vec![c],
        })
        .collect()
}
