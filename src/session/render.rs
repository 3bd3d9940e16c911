//! From an operation's outcome to reply bytes, for the commands that need no task of their own.

use gyre_cluster::modify::ModifyReply;
use gyre_cluster::outcome::Outcome;
use gyre_protocol::{Resp, Writer};
use gyre_storage::{UnixMillis, View};

use crate::execute::CommandError;

/// The shape of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Render {
    /// `+OK`.
    Ok,
    /// The value of a record, or null.
    Value,
    /// The integer of a read-modify-write.
    Integer,
    /// Written by the command itself.
    Custom,
}

/// Appends the reply for `outcome` to `out`.
pub fn render(outcome: &Outcome, shape: Render, resp: Resp, now_wall_ms: u64, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out, resp);
    match (shape, outcome) {
        (Render::Value, Outcome::Record(record)) => match record.view(UnixMillis(now_wall_ms)) {
            Some(View::Bytes(bytes)) => writer.bulk(bytes),
            Some(View::Integer(value)) => writer.bulk_integer(value),
            None => writer.null(),
        },
        (Render::Ok, Outcome::Written) => writer.ok(),
        (Render::Integer, Outcome::Modified(ModifyReply::Integer(value))) => writer.integer(*value),
        (_, Outcome::Refused(error)) => writer.error(&error.to_string()),
        (_, Outcome::Failed(failure)) => writer.error(&failure.to_string()),
        (_, other) => {
            let error = CommandError::text("ERR internal error: an operation ended in an unexpected way");
            tracing::error!(?other, ?shape, "unexpected outcome");
            if let CommandError::Text(text) = error {
                writer.error(&text);
            }
        }
    }
}
