//! Load: clients that write, count and read, move to another node when one fails, and remember what came of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::ledger::{Counter, GroupLedger, Ledger, Register};
use crate::support::{Client, Reply, eventually};

/// How long a client waits for a connection or a reply: longer than servers let a request take.
const REPLY_TIME_MAX: Duration = Duration::from_millis(2_500);
/// How long a client tries to get one operation done before it gives up.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two operations of a client: keeps the two cores of a small machine from being the fault.
const PACE: Duration = Duration::from_millis(5);
/// Between two attempts of one operation.
const RETRY: Duration = Duration::from_millis(20);
/// Registers that a client writes in turn.
const REGISTERS: usize = 20;
/// Counters that the clients of a group increment in turn.
const COUNTERS: usize = 20;

/// Consistency of reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    One,
    Quorum,
    SloppyQuorum,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::One => "ONE",
            Level::Quorum => "QUORUM STRICT",
            Level::SloppyQuorum => "QUORUM SLOPPY",
        }
    }
}

/// What clients do. Increments are forwarded to the key's first live replica, so they suffer otherwise than the rest: a
/// client that waits for one must not hide how reads and writes fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// SET, and GET.
    Registers,
    /// INCR.
    Counters,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Registers => "SET, GET",
            Work::Counters => "INCR",
        }
    }
}

/// Clients of one level that do the same work and know the same nodes.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Where its clients are, if there are several groups of one level and work.
    pub(crate) side: &'static str,
    pub(crate) level: Level,
    pub(crate) work: Work,
    /// The nodes that its clients use; each begins at another one.
    pub(crate) nodes: Vec<SocketAddr>,
    pub(crate) clients: usize,
}

impl Group {
    /// As many clients as `nodes`, of each work at each of `levels`.
    pub(crate) fn of_each(levels: &[Level], nodes: &[SocketAddr]) -> Vec<Group> {
        let of = |level, work| Group { side: "", level, work, clients: nodes.len(), nodes: nodes.to_vec() };
        levels.iter().flat_map(|level| [of(*level, Work::Registers), of(*level, Work::Counters)]).collect()
    }

    /// The same group, told from others of its level and work by `side`.
    pub(crate) fn on(self, side: &'static str) -> Group {
        Group { side, ..self }
    }

    /// What tells the group from others, and its registers.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.common_name(), self.side).trim().replace(' ', "-")
    }

    /// What tells its counters from others. Sides increment the same ones.
    fn common_name(&self) -> String {
        format!("{} {}", self.level.name(), self.work.name()).replace([' ', ','], "-").to_lowercase()
    }
}

/// What the load has done so far, for whoever makes the faults.
pub(crate) struct Progress {
    /// Operations of each group.
    acknowledged: Vec<AtomicU64>,
    /// Attempts of all groups.
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Waits until every group has had `count` more operations acknowledged.
    pub(crate) fn wait_for(&self, count: u64) {
        let now = || self.acknowledged.iter().map(|group| group.load(Ordering::Relaxed));
        let before: Vec<u64> = now().collect();
        eventually(&format!("every group has {count} more operations acknowledged"), || {
            let more: Vec<u64> = now().zip(&before).map(|(now, before)| now - before).collect();
            if more.iter().all(|more| *more >= count) { Ok(()) } else { Err(more) }
        });
    }

    /// How many attempts have failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Ends the load when the fault has been made, or has failed.
struct StopAtEnd<'a>(&'a Progress);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs the clients of `groups` while `fault` runs. Answers what each group remembers.
pub(crate) fn run(groups: &[Group], fault: impl FnOnce(&Progress)) -> Vec<GroupLedger> {
    let progress = Progress {
        acknowledged: groups.iter().map(|_| AtomicU64::new(0)).collect(),
        failed: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let began = Instant::now();
    let ledgers = thread::scope(|scope| {
        let stop = StopAtEnd(&progress);
        let clients = groups.iter().enumerate().flat_map(|(index, group)| {
            let progress = &progress;
            (0..group.clients).map(move |number| LoadClient::new(index, group, number, progress))
        });
        let threads: Vec<_> =
            clients.map(|client| scope.spawn(move || (client.index, client.run()))).collect();
        fault(&progress);
        drop(stop);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let ended = Instant::now();
    let of_group = |(index, group): (usize, &Group)| {
        let mut ledger = Ledger::new();
        let own = ledgers.iter().filter(|(of, _)| *of == index);
        own.for_each(|(_, client)| ledger.add(client.clone()));
        GroupLedger { group: group.clone(), ledger, began, ended }
    };
    groups.iter().enumerate().map(of_group).collect()
}

/// How one attempt ended.
enum Attempt {
    Done(Reply),
    /// Nothing was sent to any replica.
    Refused,
    /// The coordinator has given up: what it wrote has a version from before.
    TimedOut,
    /// Nobody knows, and a frozen node may still execute it. `sent` tells whether the request had left.
    Lost {
        sent: bool,
    },
}

struct LoadClient<'a> {
    /// The number of its group.
    index: usize,
    group: &'a Group,
    /// Its number in the group.
    number: usize,
    progress: &'a Progress,
    /// The node it uses, by its place in the group's list.
    at: usize,
    connection: Option<Client>,
    /// Registers that it goes on writing.
    registers: Vec<Register>,
    registers_made: usize,
    ledger: Ledger,
}

impl<'a> LoadClient<'a> {
    fn new(index: usize, group: &'a Group, number: usize, progress: &'a Progress) -> LoadClient<'a> {
        let mut client = LoadClient {
            index,
            group,
            number,
            progress,
            at: number % group.nodes.len(),
            connection: None,
            registers: Vec::new(),
            registers_made: 0,
            ledger: Ledger::new(),
        };
        client.registers = (0..REGISTERS).map(|_| client.new_register()).collect();
        client
    }

    fn new_register(&mut self) -> Register {
        self.registers_made += 1;
        Register::new(format!("{}:{}:{}", self.group.name(), self.number, self.registers_made))
    }

    /// Works until told to stop.
    fn run(mut self) -> Ledger {
        let mut step = 0;
        while !self.progress.stop.load(Ordering::Relaxed) {
            match self.group.work {
                // Each is written twice, then read.
                Work::Registers if step % 3 < 2 => self.write(step / 3 % REGISTERS),
                Work::Registers => self.read(step / 3 % REGISTERS),
                Work::Counters => self.count(step % COUNTERS),
            }
            step += 1;
            thread::sleep(PACE);
        }
        self.ledger.registers.append(&mut self.registers);
        self.ledger
    }

    fn write(&mut self, slot: usize) {
        let (key, value) = (self.registers[slot].key.clone(), self.registers[slot].attempted + 1);
        let line = format!("SET {key} {value}");
        let is_done = self.operate(&line, |client, attempt| {
            let register = &mut client.registers[slot];
            match attempt {
                Attempt::Done(reply) if *reply == Reply::ok() => {
                    (register.acknowledged, register.attempted) = (value, value);
                }
                Attempt::Done(_) => return false,
                Attempt::Refused | Attempt::Lost { sent: false } => {}
                Attempt::TimedOut => register.attempted = value,
                Attempt::Lost { sent: true } => (register.attempted, register.retired) = (value, true),
            }
            true
        });
        if !is_done || self.registers[slot].retired {
            let fresh = self.new_register();
            let retired = std::mem::replace(&mut self.registers[slot], fresh);
            self.ledger.registers.push(retired);
        }
    }

    fn count(&mut self, number: usize) {
        let key = format!("{}:{number}", self.group.common_name());
        self.operate(&format!("INCR {key}"), |client, attempt| {
            let counter: &mut Counter = client.ledger.counters.entry(key.clone()).or_default();
            match attempt {
                Attempt::Done(Reply::Integer(_)) => {
                    counter.acknowledged += 1;
                    counter.attempted += 1;
                }
                Attempt::Done(_) => return false,
                Attempt::Refused | Attempt::Lost { sent: false } => {}
                Attempt::TimedOut | Attempt::Lost { sent: true } => counter.attempted += 1,
            }
            true
        });
    }

    /// Reads a register of its own; only this client writes it, so it knows the least that it must find.
    fn read(&mut self, slot: usize) {
        let line = format!("GET {}", self.registers[slot].key);
        self.operate(&line, |client, attempt| {
            let Attempt::Done(reply) = attempt else { return true };
            let Some(value) = number(reply) else { return false };
            if !client.registers[slot].allows(value) {
                client.ledger.stale += 1;
            }
            true
        });
    }

    /// Tries `line` on one node after another until it is done or [`OPERATION_TIME_MAX`] is over. `note` sees the end of
    /// every attempt, and answers whether the reply is one that the command may have. Answers whether it was done.
    fn operate(&mut self, line: &str, mut note: impl FnMut(&mut Self, &Attempt) -> bool) -> bool {
        let began = Instant::now();
        while began.elapsed() < OPERATION_TIME_MAX {
            let attempt = self.attempt(line);
            if !note(self, &attempt) {
                self.ledger.unexpected.push(format!("{line}: {}", shown(&attempt)));
                return false;
            }
            match attempt {
                Attempt::Done(_) => {
                    self.ledger.succeeded(began);
                    self.progress.acknowledged[self.index].fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Attempt::Refused => self.ledger.failures.unavailable += 1,
                Attempt::TimedOut => self.ledger.failures.timeout += 1,
                Attempt::Lost { .. } => {
                    self.ledger.failures.connection += 1;
                    self.connection = None;
                }
            }
            self.progress.failed.fetch_add(1, Ordering::Relaxed);
            self.move_on();
            thread::sleep(RETRY);
        }
        self.ledger.given_up += 1;
        false
    }

    /// Goes to the next node.
    fn move_on(&mut self) {
        if self.group.nodes.len() > 1 {
            self.at = (self.at + 1) % self.group.nodes.len();
            self.connection = None;
        }
    }

    fn attempt(&mut self, line: &str) -> Attempt {
        if self.connection.is_none() {
            self.connection = self.connect();
        }
        let Some(connection) = self.connection.as_mut() else { return Attempt::Lost { sent: false } };
        match connection.try_run(line) {
            Ok(Reply::Error(text)) if text.starts_with("UNAVAILABLE ") => Attempt::Refused,
            Ok(Reply::Error(text)) if text.starts_with("TIMEOUT ") => Attempt::TimedOut,
            Ok(reply) => Attempt::Done(reply),
            Err(_) => Attempt::Lost { sent: true },
        }
    }

    /// A connection to the present node at the level of the group.
    fn connect(&self) -> Option<Client> {
        let mut client = Client::connect_within(self.group.nodes[self.at], REPLY_TIME_MAX).ok()?;
        let reply = client.try_run(&format!("CONSISTENCY {}", self.group.level.name())).ok()?;
        assert_eq!(reply, Reply::ok(), "the level is served");
        Some(client)
    }
}

/// The number that a GET or INCR answers; 0 for a key that does not exist.
pub(crate) fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Null => Some(0),
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        Reply::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn shown(attempt: &Attempt) -> String {
    match attempt {
        Attempt::Done(reply) => format!("{reply:?}"),
        Attempt::Refused => "refused".into(),
        Attempt::TimedOut => "timed out".into(),
        Attempt::Lost { .. } => "no reply".into(),
    }
}
