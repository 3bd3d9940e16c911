//! From a command to the asynchronous function that runs it.

use gyre_protocol::Reply;
use gyre_protocol::command::{Command, CommandId};

use crate::execute::{Answer, Arguments, CommandError, Context, cluster_keys, flush};

/// Runs `command`, whose arity is checked, and answers with its reply, errors included.
pub async fn run(cx: &Context, command: &'static Command, args: &Arguments) -> Reply {
    handle(cx, command.id, args).await.unwrap_or_else(Reply::from)
}

async fn handle(cx: &Context, id: CommandId, args: &Arguments) -> Answer {
    match id {
        CommandId::ClusterCountkeysinslot => cluster_keys::count_keys_in_slot(cx, args).await,
        CommandId::ClusterGetkeysinslot => cluster_keys::get_keys_in_slot(cx, args).await,
        CommandId::Dbsize => flush::dbsize(cx).await,
        CommandId::Flushall => flush::flushall(cx, args).await,
        CommandId::Flushdb => flush::flushdb(cx, args).await,
        _ => Err(CommandError::text("ERR this command is known but has no implementation, please report it")),
    }
}
