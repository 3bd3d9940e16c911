//! Wall clocks that are an hour wrong, or jump: a small library (`fake_clock.c`) shows a node another time than the
//! machine's. Its monotonic clock stays what it is, as on a machine whose clock somebody has set.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::load;
use crate::processes::{FLAGS, both_levels};
use crate::report::conclude;
use crate::support::{Client, Cluster, Node, Reply, eventually, eventually_equals};

/// Operations of every group between two steps of a scenario.
const SOME: u64 = 60;
/// The node whose clock is wrong.
const WRONG: usize = 1;
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/fake_clock.c");

/// A clock that a test sets.
struct FakeClock {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl FakeClock {
    /// A right clock, kept in `dir`. `None`, loudly, where the library cannot be built.
    fn new(dir: &Path) -> Option<FakeClock> {
        let library = dir.join("fake_clock.so");
        let built =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(SOURCE).output();
        let problem = match &built {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem.or_else(|| (!cfg!(target_os = "linux")).then(|| "not Linux".into())) {
            let name = std::thread::current().name().unwrap_or_default().to_string();
            // Past the capture of output: whoever runs the tests must see it.
            let _ = writeln!(
                io::stderr(),
                "\n*** SKIPPED {name}: no library that changes the clock ({problem}).\n*** It takes Linux and a C compiler.\n"
            );
            return None;
        }
        let path = dir.join("clock");
        let file = File::create(&path).unwrap();
        let clock = FakeClock { library, path, file };
        clock.set(0);
        Some(clock)
    }

    /// Sets it so many seconds ahead of the machine's, at once.
    fn set(&self, ahead_seconds: i64) {
        self.file.write_all_at(&ahead_seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Gives it to `node`.
    fn give_to(&self, node: &mut Node) {
        node.set_environment("LD_PRELOAD", self.library.to_str().unwrap());
        node.set_environment("FAKE_CLOCK", self.path.to_str().unwrap());
    }
}

/// Three nodes; the clock of one is `clock`.
fn cluster(clock: &FakeClock) -> Cluster {
    Cluster::start_as(3, FLAGS, |index, dir, name| {
        let mut node = Node::new(dir, name);
        if index == WRONG {
            clock.give_to(&mut node);
        }
        node
    })
}

/// A field of GYRE STATUS; of a list, the items in lines.
fn field(client: &mut Client, name: &str) -> String {
    let Reply::Array(fields) = client.run("GYRE STATUS") else { panic!("GYRE STATUS is a map") };
    let at = fields.iter().position(|field| *field == Reply::bulk(name)).unwrap();
    match &fields[at + 1] {
        Reply::Array(items) => items.iter().map(|item| item.clone().text() + "\n").collect(),
        other => other.clone().text(),
    }
}

fn wait_for(cluster: &Cluster, state: &str) {
    let mut client = cluster.client(WRONG);
    eventually_equals("the clock is judged", &state.to_string(), || field(&mut client, "clock"));
}

#[test]
fn nothing_acknowledged_is_lost_when_a_clock_jumps_an_hour_back_and_forth() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = FakeClock::new(dir.path()) else { return };
    let mut cluster = cluster(&clock);
    let groups = load::run(&both_levels(&cluster), |progress| {
        progress.wait_for(SOME);
        for ahead in [3_600, -3_600, 3_600] {
            clock.set(ahead);
            wait_for(&cluster, "outvoted");
            progress.wait_for(SOME);
        }
        // Its clients go elsewhere: what it has stamped must not win over what they write there.
        cluster.nodes[WRONG].kill();
        progress.wait_for(SOME);
        clock.set(-3_600);
        cluster.nodes[WRONG].restart();
        cluster.wait_formed();
        wait_for(&cluster, "outvoted");
        progress.wait_for(SOME);
        clock.set(0);
        wait_for(&cluster, "agreed");
        progress.wait_for(SOME);
    });
    conclude("a clock that jumps by an hour", &mut cluster, groups).expect_all_done();
}

#[test]
fn a_wrong_clock_is_shown_by_its_node_and_by_the_others_and_does_not_expire_keys() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = FakeClock::new(dir.path()) else { return };
    let cluster = cluster(&clock);
    clock.set(3_600);
    wait_for(&cluster, "outvoted");
    let (mut wrong, mut right) = (cluster.client(WRONG), cluster.client(0));
    let warnings = field(&mut wrong, "warnings");
    assert!(warnings.contains("ahead of those of most members"), "{warnings}");
    eventually("others see it, too", || {
        let warnings = field(&mut right, "warnings");
        if warnings.contains("the wall clock of node") { Ok(()) } else { Err(warnings) }
    });
    cluster.nodes[WRONG].wait_for_log("ms ahead of those of most members");
    cluster.nodes[0].wait_for_log("a peer's wall clock is");
    assert_eq!(field(&mut right, "clock"), "agreed");
    // What expires in a minute is alive wherever it is asked for, and for a minute.
    assert_eq!(right.run("SET from-right v EX 60"), Reply::ok());
    assert_eq!(wrong.run("SET from-wrong v EX 60"), Reply::ok());
    for client in [&mut wrong, &mut right] {
        for key in ["from-right", "from-wrong"] {
            assert_eq!(client.run(&format!("GET {key}")), Reply::bulk("v"), "{key}");
            let Reply::Integer(left) = client.run(&format!("TTL {key}")) else { panic!("TTL is a number") };
            assert!((50..=60).contains(&left), "{key} has {left} s left");
        }
    }
}

/// The only node there is believes its clock, and yet stamps nothing below what it has acknowledged.
#[test]
fn a_node_alone_whose_clock_was_set_back_while_it_was_down_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = FakeClock::new(dir.path()) else { return };
    let mut node = Node::new(dir.path(), "alone");
    clock.give_to(&mut node);
    node.start(FLAGS);
    let mut client = node.client_soon();
    eventually_equals("it serves", &Reply::ok(), || client.run("SET k before"));
    node.kill();
    clock.set(-3_600);
    node.restart();
    let mut client = node.client_soon();
    eventually_equals("it serves", &Reply::ok(), || client.run("SET k after"));
    assert_eq!(client.run("GET k"), Reply::bulk("after"));
    node.wait_for_log("behind what it stamped before its start");
}
