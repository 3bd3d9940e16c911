//! `gyre repair`: has nodes compared and made equal, and shows how far they are.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value as Json;

use super::{StatusError, Target, field, json, print, table};

/// How often the nodes are asked how far they are.
const POLL: Duration = Duration::from_millis(300);
/// How often in a row they must be done: what one node has told the other a moment ago shows at the next look.
const DONE_POLLS: u32 = 3;

/// What to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What the node keeps, with all who keep the same.
    Node,
    /// One slot.
    Slot(u16),
    /// Everything.
    All,
}

/// Has slots compared, and waits until that is done; then prints how it stands.
pub fn run(target: &Target, scope: Scope, as_json: bool) -> Result<(), StatusError> {
    let slot;
    let words: &[&str] = match scope {
        Scope::Node => &["GYRE", "REPAIR"],
        Scope::All => &["GYRE", "REPAIR", "ALL"],
        Scope::Slot(number) => {
            slot = number.to_string();
            &["GYRE", "REPAIR", "SLOT", &slot]
        }
    };
    let targets = if scope == Scope::Node { vec![target.clone()] } else { everybody(target)? };
    target.ask(words)?;
    let mut bars = Bars::new(!as_json && io::stderr().is_terminal());
    let mut done = 0;
    while done < DONE_POLLS {
        thread::sleep(POLL);
        let mut is_busy = false;
        for target in &targets {
            let status = json(&target.ask(&["GYRE", "REPAIR", "STATUS"])?);
            is_busy |= bars.show(&status);
        }
        done = if is_busy { 0 } else { done + 1 };
    }
    bars.end();
    status(target, as_json)
}

/// Prints how it stands.
pub fn status(target: &Target, as_json: bool) -> Result<(), StatusError> {
    print(&json(&target.ask(&["GYRE", "REPAIR", "STATUS"])?), as_json, text)
}

/// All nodes that are up, as the one that was given knows them.
fn everybody(target: &Target) -> Result<Vec<Target>, StatusError> {
    let status = json(&target.ask(&["GYRE", "STATUS"])?);
    let nodes = status.get("nodes").and_then(Json::as_array).cloned().unwrap_or_default();
    let is_up = |node: &&Json| node.get("up").and_then(Json::as_bool) == Some(true);
    let address = |node: &Json| {
        let address = field(node, "address");
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        Some(Target { host, port: port.parse().ok()?, password: target.password.clone() })
    };
    Ok(nodes.iter().filter(is_up).filter_map(address).collect())
}

/// A progress bar for each exchange.
struct Bars {
    all: Option<MultiProgress>,
    bars: BTreeMap<(String, String), ProgressBar>,
}

impl Bars {
    fn new(is_shown: bool) -> Bars {
        Bars { all: is_shown.then(MultiProgress::new), bars: BTreeMap::new() }
    }

    /// Shows what a node says. Answers whether it has something to do yet.
    fn show(&mut self, status: &Json) -> bool {
        let node = field(status, "node");
        let mut is_busy = false;
        for peer in peers(status) {
            let state = field(peer, "state");
            is_busy |= state == "running" || state == "waiting";
            let key = (node.clone(), field(peer, "id"));
            if state == "running" {
                let message = format!(
                    "{} with {}: {} rows in, {} out",
                    short(&node),
                    field(peer, "address"),
                    field(peer, "rows-pulled"),
                    field(peer, "rows-pushed")
                );
                if let Some(all) = &self.all {
                    let bar = self.bars.entry(key).or_insert_with(|| all.add(bar()));
                    bar.set_length(count(peer, "slots-total"));
                    bar.set_position(count(peer, "slots-done"));
                    bar.set_message(message);
                }
            } else if let Some(bar) = self.bars.remove(&key) {
                bar.finish();
            }
        }
        is_busy
    }

    fn end(self) {
        self.bars.into_values().for_each(|bar| bar.finish());
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos:>5}/{len} slots  {elapsed}  {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn text(status: &Json) -> String {
    let get = |name| field(status, name);
    let interval = match count(status, "interval-seconds") {
        0 => "only when asked to".to_string(),
        seconds => format!("every {seconds} s"),
    };
    let mut text = format!("Node     {}, {interval}, up to {} records/s\n", get("node"), get("rate"));
    let (oldest, slot) = (get("oldest-unverified-seconds"), get("oldest-unverified-slot"));
    text += &format!(
        "Oldest   slot {slot} was compared {oldest} s ago; {} slots are marked\n",
        get("marked-slots")
    );
    text += &format!(
        "So far   {} exchanges completed, {} broken off; rows {} out, {} in; bytes {} out, {} in\n",
        get("completed"),
        get("failed"),
        get("rows-sent"),
        get("rows-received"),
        get("bytes-sent"),
        get("bytes-received")
    );
    text += &format!(
        "Trees    {} keys, {} bytes, {} segments to hash anew\n\n",
        get("tree-keys"),
        get("tree-bytes"),
        get("dirty-segments")
    );
    if peers(status).is_empty() {
        return text + "Nobody else keeps what this node keeps.\n";
    }
    let header =
        ["ADDRESS", "STATE", "DRIVEN", "SLOTS", "DONE", "OF", "OLDEST s", "FAILURES", "TROUBLE", "NODE"];
    let rows = peers(status).iter().map(|peer| {
        let driven = if peer.get("drives").and_then(Json::as_bool) == Some(true) { "here" } else { "there" };
        let names = ["address", "state", "slots", "slots-done", "slots-total", "oldest-unverified-seconds"];
        let [address, state, slots, done, total, oldest] = names.map(|name| field(peer, name));
        let [failures, trouble, id] = ["failures", "last-trouble", "id"].map(|name| field(peer, name));
        [address, state, driven.to_string(), slots, done, total, oldest, failures, trouble, id]
    });
    text + &table(&header, rows)
}

fn peers(status: &Json) -> &[Json] {
    status.get("peers").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn count(object: &Json, name: &str) -> u64 {
    object.get(name).and_then(Json::as_u64).unwrap_or(0)
}

/// The part of a node's id that tells it from others.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::{ProgressDrawTarget, TermLike};
    use serde_json::json;

    use super::*;

    fn status(state: &str) -> Json {
        json!({"node": "00ab00ab00ab", "interval-seconds": 600, "rate": 2000, "oldest-unverified-seconds": 61,
            "peers": [{"id": "00cd", "address": "a:1", "state": state, "drives": true, "slots": 16384,
                "slots-done": 5, "slots-total": 10, "rows-pulled": 7, "failures": 0, "last-trouble": null}]})
    }

    #[test]
    fn the_text_shows_a_line_for_each_peer() {
        let text = text(&status("running"));
        assert!(text.contains("every 600 s"), "{text}");
        let line: Vec<&str> =
            text.lines().find(|line| line.starts_with("a:1")).unwrap().split_whitespace().collect();
        assert_eq!(line, ["a:1", "running", "here", "16384", "5", "10", "-", "0", "-", "00cd"]);
        assert!(super::text(&json!({"peers": []})).contains("Nobody else"));
    }

    /// A terminal that keeps what is written to it.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            120
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_shows_a_bar_for_each_exchange_that_runs() {
        let terminal = Terminal::default();
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut bars = Bars { all: Some(MultiProgress::with_draw_target(target)), bars: BTreeMap::default() };
        let shown = || terminal.0.lock().unwrap().clone();
        bars.show(&status("waiting"));
        assert_eq!(shown(), "", "what waits has none");
        bars.show(&status("running"));
        let text = shown();
        assert!(text.contains("5/10 slots") && text.contains("00ab00ab with a:1: 7 rows in"), "{text}");
        assert_eq!(bars.bars.len(), 1);
        bars.show(&status("idle"));
        assert!(shown().contains("10/10 slots") && bars.bars.is_empty(), "it is full at its end");
    }

    #[test]
    fn it_is_done_when_nothing_runs_or_waits() {
        let mut bars = Bars::new(false);
        let busy = ["running", "waiting", "idle", "down"].map(|state| bars.show(&status(state)));
        assert_eq!(busy, [true, true, false, false]);
    }
}
