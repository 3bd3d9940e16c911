//! What a run comes to, for people.

use std::fmt;

use crate::checkers::Checkers;
use crate::checkers::convergence::Agreement;
use crate::history::{End, Operation};
use crate::plan::Plan;
use crate::queue::HOUR;
use crate::refusals::Refusals;
use crate::surroundings::Env;

/// What happened in one run, or in several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// How many runs.
    pub runs: u64,
    /// How many nodes, in sum.
    pub nodes: u64,
    /// The hash of everything that happened: equal for two runs of one seed.
    pub hash: u64,
    /// Simulated time, in hours.
    pub hours: f64,
    /// Events.
    pub events: u64,
    /// Operations that clients asked for.
    pub operations: u64,
    /// Those that were done, or refused by what they read.
    pub done: u64,
    /// Those that were refused with nothing sent.
    pub unavailable: u64,
    /// And why.
    pub refusals: Refusals,
    /// Those that timed out.
    pub timed_out: u64,
    /// Those whose node stopped.
    pub lost: u64,
    /// Those that clients did not wait for.
    pub given_up: u64,
    /// Versions stamped.
    pub stamps: u64,
    /// Batches committed.
    pub commits: u64,
    /// Faults.
    pub strikes: u64,
    /// Processes that ended without warning.
    pub stops: u64,
    /// Batches that a power failure has taken.
    pub batches_lost: u64,
    /// Disks that were replaced by empty ones.
    pub disks_lost: u64,
    /// Stores that stopped accepting writes since their disk failed.
    pub poisoned: u64,
    /// Messages refused since their sender's clock was too far ahead.
    pub clock_refusals: u64,
    /// Acknowledged writes over which earlier ones won, since some clock was further ahead than is allowed.
    pub overtaken: u64,
    /// How often a node that had started among too few others went by a wrong clock though most were right.
    pub strays: u64,
    /// How often a node has taken another for dead.
    pub suspicions: u64,
    /// Records handed over for hints.
    pub handed_over: u64,
    /// Expired rows swept.
    pub swept: u64,
    /// Dead keys removed.
    pub purged: u64,
    /// Nodes that were away for so long that they came back empty.
    pub lapses: u64,
    /// Flushes of a database, and those that were acknowledged.
    pub flushes: u64,
    /// See above.
    pub flushed: u64,
    /// Exchanges that compared all they were to compare, and rows that they have sent.
    pub exchanges: u64,
    /// See above.
    pub exchanged: u64,
    /// Keys of which hints alone had to bring the newest row to every replica, and did.
    pub owed: u64,
    /// How the replicas agreed after healing, before every key was read at ALL.
    pub before_reads: Agreement,
}

impl Report {
    pub(crate) fn new(plan: &Plan) -> Report {
        Report { runs: 1, nodes: plan.nodes as u64, ..Report::default() }
    }

    pub(crate) fn count(&mut self, operation: &Operation) {
        self.operations += 1;
        match operation.end {
            End::Done | End::Refused => self.done += 1,
            End::Unavailable | End::Overloaded => self.unavailable += 1,
            End::TimedOut => self.timed_out += 1,
            End::Lost => self.lost += 1,
            End::Pending => {}
        }
    }

    pub(crate) fn finish(&mut self, env: &Env, checkers: &Checkers, strikes: u64) {
        self.overtaken = checkers.overtaken;
        self.hash = env.queue.hash();
        self.hours = env.queue.now() as f64 / HOUR as f64;
        self.stamps = env.journal.stamps();
        self.commits = env.commits;
        self.strays = env.strays;
        self.suspicions = env.suspicions;
        self.handed_over = env.handed_over;
        self.swept = env.swept;
        self.purged = env.purged;
        self.exchanges = env.exchanges;
        self.exchanged = env.exchanged;
        self.strikes = strikes;
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Report) {
        self.runs += other.runs;
        self.nodes += other.nodes;
        self.hash ^= other.hash;
        self.hours += other.hours;
        self.events += other.events;
        self.operations += other.operations;
        self.done += other.done;
        self.unavailable += other.unavailable;
        self.refusals.add(&other.refusals);
        self.timed_out += other.timed_out;
        self.lost += other.lost;
        self.given_up += other.given_up;
        self.stamps += other.stamps;
        self.commits += other.commits;
        self.strikes += other.strikes;
        self.stops += other.stops;
        self.batches_lost += other.batches_lost;
        self.disks_lost += other.disks_lost;
        self.poisoned += other.poisoned;
        self.clock_refusals += other.clock_refusals;
        self.overtaken += other.overtaken;
        self.strays += other.strays;
        self.suspicions += other.suspicions;
        self.handed_over += other.handed_over;
        self.owed += other.owed;
        self.swept += other.swept;
        self.purged += other.purged;
        self.lapses += other.lapses;
        self.flushes += other.flushes;
        self.flushed += other.flushed;
        self.exchanges += other.exchanges;
        self.exchanged += other.exchanged;
        self.before_reads.equal += other.before_reads.equal;
        self.before_reads.different += other.before_reads.different;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs of {} nodes in sum: {:.2} simulated hours, {} events, hash {:016x}",
            self.runs, self.nodes, self.hours, self.events, self.hash
        )?;
        writeln!(
            f,
            "operations: {} asked, {} done, {} unavailable, {} timed out, {} lost with their node, {} given up",
            self.operations, self.done, self.unavailable, self.timed_out, self.lost, self.given_up
        )?;
        writeln!(f, "{}", self.refusals)?;
        writeln!(
            f,
            "faults: {} struck, {} processes stopped, {} batches lost with power, {} disks lost and {} failed, {} messages refused for \
             their clock, {} writes lost to earlier ones where most clocks were wrong or a node began among too few ({} times); nodes \
             were suspected {} times",
            self.strikes,
            self.stops,
            self.batches_lost,
            self.disks_lost,
            self.poisoned,
            self.clock_refusals,
            self.overtaken,
            self.strays,
            self.suspicions
        )?;
        write!(
            f,
            "rows: {} stamped in {} commits, {} handed over for hints, {} swept, {} dead keys removed, {} nodes came back empty after a long absence, {} of {} flushes done, {} rows sent in {} exchanges; after healing {} keys agreed on all replicas ({} of \
             them had to), {} more once they were read",
            self.stamps,
            self.commits,
            self.handed_over,
            self.swept,
            self.purged,
            self.lapses,
            self.flushed,
            self.flushes,
            self.exchanged,
            self.exchanges,
            self.before_reads.equal,
            self.owed,
            self.before_reads.different
        )
    }
}
