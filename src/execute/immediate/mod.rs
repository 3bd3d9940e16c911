//! Commands that are answered at once, where they are parsed: they read or change the connection or this node, and
//! ask no replica.

pub mod client;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod consistency;
#[cfg(test)]
pub mod fixtures;
pub mod gyre;
pub mod info;
pub mod latency;
pub mod refusals;
pub mod scripting;
pub mod server;
pub mod slowlog;
pub mod words;

use std::time::{Duration, SystemTime};

use gyre_protocol::command::{Command, CommandId, docs, introspect};
use gyre_protocol::{Args, Reply};
use gyre_storage::UnixMillis;

use crate::execute::Answer;
use crate::node::Node;
use crate::session::registry::ClientEntry;
use crate::session::settings::SessionSettings;
use crate::status_report;

/// The version of Redis whose commands, replies and errors these are; drivers switch features on by it.
pub const REDIS_VERSION: &str = "7.2.7";

/// What an immediate command sees.
pub struct Immediate<'a> {
    /// The connection's own state.
    pub settings: &'a mut SessionSettings,
    /// The node.
    pub node: &'a Node,
    /// The connection as other workers see it.
    pub client: &'a ClientEntry,
    /// The number of the worker.
    pub worker: usize,
    /// The wall clock.
    pub now: UnixMillis,
}

type Handler = fn(&mut Immediate<'_>, &'static Command, Args<'_>) -> Answer;

/// Whether `command` is answered at once.
pub fn is_immediate(command: &Command) -> bool {
    handler(command.id).is_some()
}

/// Answers `command`, which [`is_immediate`] and whose arity is checked.
///
/// After `CLIENT REPLY OFF` or `SKIP` the reply is [`Reply::Ok`] and not to be sent.
pub fn execute(cx: &mut Immediate<'_>, command: &'static Command, args: Args<'_>) -> Reply {
    match handler(command.id) {
        Some(handler) => handler(cx, command, args).unwrap_or_else(Reply::from),
        None => Reply::error("ERR this command cannot be answered at once, please report it"),
    }
}

/// The function of each immediate command.
fn handler(id: CommandId) -> Option<Handler> {
    connection_handler(id).or_else(|| server_handler(id)).or_else(|| cluster_handler(id))
}

/// Commands about the connection.
fn connection_handler(id: CommandId) -> Option<Handler> {
    Some(match id {
        CommandId::Ping => |_, _, args| connection::ping(args),
        CommandId::Echo => |_, _, args| Ok(connection::echo(args)),
        CommandId::Quit => |cx, _, _| Ok(connection::quit(cx.settings)),
        CommandId::Hello => |cx, _, args| connection::hello(cx.settings, &cx.node.config.load(), args),
        CommandId::Auth => |cx, _, args| connection::auth(cx.settings, &cx.node.config.load(), args),
        CommandId::Reset => |cx, _, _| Ok(connection::reset(cx.settings, &cx.node.config.load())),
        CommandId::Select => |cx, _, args| connection::select(cx.settings, &cx.node.config.load(), args),
        CommandId::ClientId => |cx, _, _| Ok(client::id(cx.settings)),
        CommandId::ClientInfo => |cx, _, _| Ok(client::info(cx)),
        CommandId::ClientList => |cx, _, args| client::list(cx, args),
        CommandId::ClientSetname => |cx, _, args| client::setname(cx.settings, args),
        CommandId::ClientGetname => |cx, _, _| Ok(client::getname(cx.settings)),
        CommandId::ClientSetinfo => |cx, _, args| client::setinfo(cx.settings, args),
        CommandId::ClientKill => |cx, _, args| client::kill(cx.settings, &cx.node.clients, args),
        CommandId::ClientReply => |cx, _, args| client::reply(cx.settings, args),
        CommandId::ClientNoEvict => |cx, _, args| client::no_evict(cx.settings, args),
        CommandId::ClientNoTouch => |cx, _, args| client::no_touch(cx.settings, args),
        CommandId::Consistency => |cx, _, args| consistency::consistency(cx.settings, args),
        CommandId::Readonly => |cx, _, _| Ok(consistency::readonly(cx.settings)),
        CommandId::Readwrite => |cx, _, _| Ok(consistency::readwrite(cx.settings)),
        // No slot is ever being imported, so that there is nothing to ask for.
        CommandId::Asking => |_, _, _| Ok(Reply::Ok),
        _ => return None,
    })
}

/// Commands about this node.
fn server_handler(id: CommandId) -> Option<Handler> {
    Some(match id {
        CommandId::Info => |cx, _, args| Ok(info::info(cx, args)),
        CommandId::Time => |_, _, _| Ok(server::time(since_epoch())),
        CommandId::Debug => |_, _, _| server::debug(),
        CommandId::ConfigGet => |cx, _, args| Ok(config::get(&cx.node.config.load(), args)),
        CommandId::ConfigSet => |cx, _, args| config::set(&cx.node.config, args),
        CommandId::ConfigResetstat => |cx, _, _| {
            cx.node.metrics.reset();
            Ok(Reply::Ok)
        },
        CommandId::ConfigRewrite => |cx, _, _| config::rewrite(&cx.node.config.load()),
        CommandId::SlowlogGet => |cx, _, args| slowlog::get(&cx.node.slowlog, args),
        CommandId::SlowlogLen => |cx, _, _| Ok(slowlog::len(&cx.node.slowlog)),
        CommandId::SlowlogReset => |cx, _, _| Ok(slowlog::reset(&cx.node.slowlog)),
        CommandId::LatencyLatest => |cx, _, _| Ok(latency::latest(&cx.node.metrics.latency)),
        CommandId::LatencyHistory => |cx, _, args| Ok(latency::history(&cx.node.metrics.latency, args)),
        CommandId::LatencyReset => |cx, _, args| Ok(latency::reset(&cx.node.metrics.latency, args)),
        CommandId::LatencyDoctor => |cx, _, _| {
            let threshold_ms = cx.node.config.load().latency_monitor_threshold_ms;
            Ok(latency::doctor(&cx.node.metrics.latency, threshold_ms))
        },
        CommandId::LatencyGraph => |cx, _, args| latency::graph(&cx.node.metrics.latency, args),
        CommandId::LatencyHistogram => {
            |cx, _, args| Ok(latency::histogram(&cx.node.metrics.commands(), args))
        }
        CommandId::FunctionFlush => |_, _, args| scripting::function_flush(args),
        CommandId::FunctionList => |_, _, args| scripting::function_list(args),
        CommandId::FunctionStats => |_, _, _| Ok(scripting::function_stats()),
        CommandId::ScriptFlush => |_, _, args| scripting::script_flush(args),
        CommandId::ScriptExists => |_, _, args| Ok(scripting::script_exists(args)),
        CommandId::Command
        | CommandId::CommandCount
        | CommandId::CommandInfo
        | CommandId::CommandDocs
        | CommandId::CommandList
        | CommandId::CommandGetkeys
        | CommandId::CommandGetkeysandflags => |_, command, args| Ok(table(command, args)),
        CommandId::ClientHelp
        | CommandId::ClusterHelp
        | CommandId::CommandHelp
        | CommandId::ConfigHelp
        | CommandId::FunctionHelp
        | CommandId::GyreHelp
        | CommandId::LatencyHelp
        | CommandId::MemoryHelp
        | CommandId::ObjectHelp
        | CommandId::ScriptHelp
        | CommandId::SlowlogHelp => |_, command, _| Ok(docs::help_of(command)),
        _ => return None,
    })
}

/// Commands about the cluster.
fn cluster_handler(id: CommandId) -> Option<Handler> {
    Some(match id {
        CommandId::ClusterInfo => |cx, _, _| Ok(cluster::info(cx)),
        CommandId::ClusterNodes => |cx, _, _| Ok(cluster::nodes(cx)),
        CommandId::ClusterSlots => |cx, _, _| Ok(cluster::slots(cx)),
        CommandId::ClusterShards => |cx, _, _| Ok(cluster::shards(cx)),
        CommandId::ClusterMyid | CommandId::ClusterMyshardid => |cx, _, _| Ok(cluster::myid(cx)),
        CommandId::ClusterKeyslot => |_, _, args| Ok(cluster::keyslot(args)),
        CommandId::ClusterLinks => |cx, _, _| Ok(cluster::links(cx)),
        CommandId::ClusterCountFailureReports => |cx, _, args| cluster::count_failure_reports(cx, args),
        CommandId::ClusterReplicas => |cx, _, args| cluster::replicas(cx, args),
        CommandId::GyreStatus => |cx, _, _| Ok(status_report::status_reply(cx.node)),
        CommandId::GyreRing => |cx, _, args| gyre::ring(cx.node, args),
        CommandId::GyreHints => |cx, _, _| Ok(status_report::hints_reply(cx.node)),
        CommandId::GyreRepair => |cx, _, args| gyre::repair(cx.node, args),
        _ => return None,
    })
}

/// `COMMAND …`, answered from the table itself.
fn table(command: &'static Command, args: Args<'_>) -> Reply {
    introspect::answer(command.id, args).unwrap_or(Reply::NullArray)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
