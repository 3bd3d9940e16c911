//! From a command to the asynchronous function that runs it.

use gyre_protocol::Reply;
use gyre_protocol::command::{Command, CommandId};

use crate::execute::expiry::Report;
use crate::execute::object::Aspect;
use crate::execute::options::TimeUnit;
use crate::execute::{
    Answer, Arguments, CommandError, Context, bits, cluster_keys, expiry, flush, keys, lcs, multi, object,
    replicas, scan, siblings, strings, wait,
};

/// Runs `command`, whose arity is checked, and answers with its reply, errors included.
pub async fn run(cx: &Context, command: &'static Command, args: &Arguments) -> Reply {
    handle(cx, command.id, args).await.unwrap_or_else(Reply::from)
}

async fn handle(cx: &Context, id: CommandId, args: &Arguments) -> Answer {
    match id {
        CommandId::Append => strings::append(cx, args).await,
        CommandId::Bitcount => bits::bitcount(cx, args).await,
        CommandId::Bitop => bits::bitop(cx, args).await,
        CommandId::Bitpos => bits::bitpos(cx, args).await,
        CommandId::ClusterCountkeysinslot => cluster_keys::count_keys_in_slot(cx, args).await,
        CommandId::ClusterGetkeysinslot => cluster_keys::get_keys_in_slot(cx, args).await,
        CommandId::Copy => keys::copy(cx, args).await,
        CommandId::Dbsize => flush::dbsize(cx).await,
        CommandId::Decr => strings::add(cx, args, -1).await,
        CommandId::Decrby => strings::decrby(cx, args).await,
        CommandId::Del | CommandId::Unlink => keys::del(cx, args).await,
        CommandId::Exists | CommandId::Touch => keys::count_existing(cx, args).await,
        CommandId::Expire => expiry::expire(cx, args, TimeUnit::SECONDS, "expire").await,
        CommandId::Expireat => expiry::expire(cx, args, TimeUnit::AT_SECONDS, "expireat").await,
        CommandId::Expiretime => expiry::ttl(cx, args, Report::AtSeconds).await,
        CommandId::Flushall => flush::flushall(cx, args).await,
        CommandId::Flushdb => flush::flushdb(cx, args).await,
        CommandId::Get => strings::get(cx, args).await,
        CommandId::Getbit => bits::getbit(cx, args).await,
        CommandId::Getdel => strings::getdel(cx, args).await,
        CommandId::Getex => strings::getex(cx, args).await,
        CommandId::Getrange | CommandId::Substr => strings::getrange(cx, args).await,
        CommandId::Getset => strings::getset(cx, args).await,
        CommandId::GyreReplicas => replicas::replicas(cx, args).await,
        CommandId::Incr => strings::add(cx, args, 1).await,
        CommandId::Incrby => strings::incrby(cx, args).await,
        CommandId::Incrbyfloat => strings::incrbyfloat(cx, args).await,
        CommandId::Keys => scan::keys(cx, args).await,
        CommandId::Lcs => lcs::lcs(cx, args).await,
        CommandId::MemoryUsage => object::memory_usage(cx, args).await,
        CommandId::Mget => multi::mget(cx, args).await,
        CommandId::Move => keys::move_to(cx, args).await,
        CommandId::Mset => multi::mset(cx, args).await,
        CommandId::Msetnx => multi::msetnx(cx, args).await,
        CommandId::ObjectEncoding => object::object(cx, args, Aspect::Encoding).await,
        CommandId::ObjectFreq => object::object(cx, args, Aspect::Frequency).await,
        CommandId::ObjectIdletime => object::object(cx, args, Aspect::IdleTime).await,
        CommandId::ObjectRefcount => object::object(cx, args, Aspect::References).await,
        CommandId::Persist => expiry::persist(cx, args).await,
        CommandId::Pexpire => expiry::expire(cx, args, TimeUnit::MILLIS, "pexpire").await,
        CommandId::Pexpireat => expiry::expire(cx, args, TimeUnit::AT_MILLIS, "pexpireat").await,
        CommandId::Pexpiretime => expiry::ttl(cx, args, Report::AtMillis).await,
        CommandId::Psetex => strings::setex(cx, args, TimeUnit::MILLIS, "psetex").await,
        CommandId::Pttl => expiry::ttl(cx, args, Report::Millis).await,
        CommandId::Randomkey => scan::randomkey(cx).await,
        CommandId::Rename => keys::rename(cx, args).await,
        CommandId::Renamenx => keys::renamenx(cx, args).await,
        CommandId::Scan => scan::scan(cx, args).await,
        CommandId::Set => strings::set(cx, args).await,
        CommandId::Setbit => bits::setbit(cx, args).await,
        CommandId::Setex => strings::setex(cx, args, TimeUnit::SECONDS, "setex").await,
        CommandId::Setnx => strings::setnx(cx, args).await,
        CommandId::Setrange => strings::setrange(cx, args).await,
        CommandId::Strlen => strings::strlen(cx, args).await,
        CommandId::Ttl => expiry::ttl(cx, args, Report::Seconds).await,
        CommandId::Type => keys::type_of(cx, args).await,
        CommandId::VcDel => siblings::delete(cx, args).await,
        CommandId::VcGet => siblings::get(cx, args).await,
        CommandId::VcSet => siblings::set(cx, args).await,
        CommandId::Wait => wait::wait(cx, args).await,
        CommandId::Waitaof => wait::waitaof(cx, args).await,
        _ => Err(CommandError::text("ERR this command is known but has no implementation, please report it")),
    }
}
