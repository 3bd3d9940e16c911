//! The shopping cart of `docs/siblings.md`, played as it stands there.

use std::collections::{BTreeSet, HashMap};
use std::thread;
use std::time::{Duration, SystemTime};

use super::{Client, Reply};

const PAGE: &str = include_str!("../../docs/siblings.md");
/// How far apart commands are by the wall clock. Two sides that write within the same millisecond have no order in time,
/// and the example says which write is the newer one.
const APART: Duration = Duration::from_millis(5);

/// Whom a line of the example speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Any node, while the network is whole.
    Client,
    /// A node on one side of the broken network.
    Left,
    /// A node on the other.
    Right,
}

/// What happens between the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    Breaks,
    Heals,
}

/// Where the example is played.
pub(crate) trait Stage {
    /// A connection to a node of `side`.
    fn client(&mut self, side: Side) -> Client;
    /// The network breaks or heals. All that must be noticed is, when it returns.
    fn happens(&mut self, happening: Happening);
}

/// Plays the example and compares every reply. Values may come in any order: clocks say which is newer.
pub(crate) fn play(stage: &mut impl Stage) {
    let mut contexts: HashMap<String, String> = HashMap::new();
    let mut commands = 0;
    for step in steps() {
        let (side, command) = match step.line {
            Line::Happening(happening) => {
                stage.happens(happening);
                continue;
            }
            Line::Command(side, command) => (side, command),
        };
        let words: Vec<String> =
            command.iter().map(|word| contexts.get(word).cloned().unwrap_or_else(|| word.clone())).collect();
        let arguments: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        wait_for_clock();
        let reply = stage.client(side).call(&arguments);
        check(&command.join(" "), reply, &step.reply, &mut contexts);
        commands += 1;
    }
    assert!(commands > 8, "the example was found");
}

/// Waits until the wall clock, which all nodes here go by, has moved on.
fn wait_for_clock() {
    let begun = SystemTime::now();
    while begun.elapsed().is_ok_and(|passed| passed < APART) {
        thread::sleep(Duration::from_millis(1));
    }
}

enum Line {
    Happening(Happening),
    Command(Side, Vec<String>),
}

struct Step {
    line: Line,
    reply: Vec<String>,
}

fn steps() -> Vec<Step> {
    let block = PAGE.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words = |text: &str| text.split_whitespace().map(|word| word.replace("\"\"", "")).collect();
        let command = |side, text: &str| Line::Command(side, words(text));
        let parsed = match line.split_once('>') {
            Some(("client", text)) => command(Side::Client, text),
            Some(("left", text)) => command(Side::Left, text),
            Some(("right", text)) => command(Side::Right, text),
            _ if line == "(the network breaks)" => Line::Happening(Happening::Breaks),
            _ if line == "(the network heals)" => Line::Happening(Happening::Heals),
            _ => {
                steps.last_mut().expect("a reply follows a command").reply.push(line.to_string());
                continue;
            }
        };
        steps.push(Step { line: parsed, reply: Vec::new() });
    }
    steps
}

fn check(command: &str, reply: Reply, expected: &[String], contexts: &mut HashMap<String, String>) {
    let Some(name) = expected.first().and_then(|line| line.strip_prefix("context ")) else {
        let text = match reply {
            Reply::Integer(number) => number.to_string(),
            other => other.text(),
        };
        assert_eq!([text].as_slice(), expected, "{command}");
        return;
    };
    let [context, values] = <[Reply; 2]>::try_from(reply.array()).expect("a context and values");
    let values: Vec<String> = values.array().into_iter().map(Reply::text).collect();
    let as_set = |values: &[String]| values.iter().cloned().collect::<BTreeSet<String>>();
    assert_eq!(as_set(&values), as_set(&expected[1..]), "{command}");
    contexts.insert(name.to_string(), context.text());
}
