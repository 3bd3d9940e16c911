//! Clients: each does one step at a time, through one node, until that disappoints it.

use gyre_cluster::coordinator::Tag;

use crate::history::{Action, End};
use crate::network::WORKERS;
use crate::random::Random;
use crate::workload::Intent;

/// How often a client repeats an operation that failed.
const RETRIES_MAX: u32 = 2;

/// A client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// The node it is connected to.
    pub(crate) node: usize,
    pub(crate) worker: usize,
    /// What it waits for.
    pub(crate) waiting: Vec<Tag>,
    /// What it will do before it thinks of anything else.
    pub(crate) next: Vec<Intent>,
    retries: u32,
}

impl Client {
    pub(crate) fn new(random: &mut Random, nodes: usize) -> Client {
        let mut client = Client::default();
        client.reconnect(random, nodes);
        client
    }

    /// Goes to another node, or to the same one again.
    pub(crate) fn reconnect(&mut self, random: &mut Random, nodes: usize) {
        self.node = random.index(nodes);
        self.worker = random.index(WORKERS);
    }

    /// An operation has ended, or its connection has. What is worth repeating is repeated, mostly elsewhere.
    pub(crate) fn told(&mut self, random: &mut Random, nodes: usize, tag: Tag, intent: Intent, end: End) {
        self.waiting.retain(|waiting| *waiting != tag);
        match end {
            End::Done | End::Refused | End::Pending => {
                self.retries = 0;
                if end == End::Done {
                    let actions = follow_up(random, intent.action, tag);
                    self.next.extend(actions.into_iter().map(|action| Intent { action, ..intent }));
                }
            }
            End::Unavailable | End::TimedOut | End::Overloaded | End::Lost => {
                if random.chance(700) {
                    self.reconnect(random, nodes);
                }
                // What may have been done is repeated only if doing it twice does no harm.
                let is_harmless = !intent.action.is_modify() || end == End::Unavailable;
                if is_harmless && self.retries < RETRIES_MAX {
                    self.retries += 1;
                    self.next.push(intent);
                } else {
                    self.retries = 0;
                }
            }
        }
    }

    /// It does not wait for `tag` any more. `false` if it did not anyway.
    pub(crate) fn give_up(&mut self, random: &mut Random, nodes: usize, tag: Tag) -> bool {
        let waited = self.waiting.contains(&tag);
        self.waiting.retain(|waiting| *waiting != tag);
        if waited {
            self.reconnect(random, nodes);
        }
        waited
    }
}

/// What a client does after `action`, which was done as operation `tag`: gives a lock back; merges what it has read and
/// writes that back, or deletes it, at times twice with one context, as two of its threads would.
fn follow_up(random: &mut Random, action: Action, tag: Tag) -> Vec<Action> {
    match action {
        Action::Acquire => vec![Action::Release { holder: tag }],
        Action::GetSiblings => {
            let set = Action::SetSibling { from: Some(tag), ttl_ms: None };
            match random.below(100) {
                0..55 => vec![set],
                55..65 => vec![set, set],
                65..80 => vec![Action::DeleteSiblings { from: tag }],
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}
