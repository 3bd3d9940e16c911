//! `INFO`: what tools and drivers read about a server, in the fields of Redis 7.2, and Gyre's own section.
//!
//! Fields that count what does not exist here (replicas, forks, evictions, subscriptions) are 0; fields that would
//! need a count that is not kept (`keyspace_hits`, keys by database) are left out.

pub mod process;
pub mod sections;
pub mod text;

use std::sync::atomic::Ordering;

use gyre_cluster::topology::MemberState;
use gyre_protocol::{Args, Reply};

use crate::config::{ClientMode, Config};
use crate::execute::immediate::{Immediate, REDIS_VERSION, cluster};
use crate::metrics::CommandStats;
use crate::status_report;

use process::Process;
use sections::Section;
use text::{Text, hundredths};

/// `INFO [section …]`.
pub fn info(cx: &Immediate<'_>, args: Args<'_>) -> Reply {
    let config = cx.node.config.load();
    let mut text = Text::default();
    for section in sections::chosen(args.from(1)) {
        match section {
            Section::Server => server(&mut text, cx, &config),
            Section::Gyre => gyre(&mut text, cx, &config),
            Section::Clients => clients(&mut text, cx, &config),
            Section::Memory => memory(&mut text, cx),
            Section::Persistence => persistence(&mut text, cx),
            Section::Stats => stats(&mut text, cx),
            Section::Replication => replication(&mut text, &cx.node.run_id),
            Section::Cpu => cpu(&mut text, &Process::read()),
            Section::Modules => text.section("Modules"),
            Section::Commandstats => command_stats(&mut text, &cx.node.metrics.commands()),
            Section::Errorstats => error_stats(&mut text, &cx.node.metrics.errors()),
            Section::Latencystats => latency_stats(&mut text, &cx.node.metrics.commands()),
            Section::Cluster => cluster_mode(&mut text, &config),
            Section::Keyspace => keyspace(&mut text, cx),
        }
    }
    Reply::verbatim(text.into_bytes())
}

fn server(text: &mut Text, cx: &Immediate<'_>, config: &Config) {
    let uptime = cx.node.time.uptime().as_secs();
    text.section("Server");
    text.field("redis_version", REDIS_VERSION);
    text.field("gyre_version", env!("CARGO_PKG_VERSION"));
    text.field("redis_git_sha1", "00000000");
    text.field("redis_git_dirty", 0);
    text.field("redis_build_id", "0");
    text.field("redis_mode", config.client_mode.name());
    text.field("os", format_args!("{} {} {}", os_name(), Process::read().kernel, std::env::consts::ARCH));
    text.field("arch_bits", usize::BITS);
    text.field("monotonic_clock", "POSIX clock_gettime");
    text.field("multiplexing_api", "epoll");
    text.field("process_id", std::process::id());
    text.field("process_supervised", "no");
    text.field("run_id", &cx.node.run_id);
    text.field("tcp_port", config.port);
    text.field("server_time_usec", cx.now.0.saturating_mul(1000));
    text.field("uptime_in_seconds", uptime);
    text.field("uptime_in_days", uptime / 86_400);
    text.field("hz", 10);
    text.field("configured_hz", 10);
    // As Redis: Unix seconds, 24 bits.
    text.field("lru_clock", cx.now.0 / 1000 % (1 << 24));
    let executable = std::env::current_exe().unwrap_or_default();
    text.field("executable", executable.display());
    text.field("config_file", config.file.as_deref().unwrap_or_else(|| "".as_ref()).display());
    text.field("io_threads_active", 0);
}

fn os_name() -> &'static str {
    if cfg!(target_os = "linux") { "Linux" } else { std::env::consts::OS }
}

fn gyre(text: &mut Text, cx: &Immediate<'_>, config: &Config) {
    let view = cluster::view(cx);
    text.section("Gyre");
    text.field("gyre_version", env!("CARGO_PKG_VERSION"));
    text.field("node_id", cx.node.id);
    text.field("incarnation", cx.node.incarnation());
    text.field("cluster_name", &config.cluster_name);
    text.field("cluster_formed", u8::from(cx.node.has_formed()));
    if let Some(topology) = cx.node.topology.load().as_ref() {
        let own_state = topology.members.get(&cx.node.id).map(|own| own.state);
        text.field("cluster_id", format_args!("{:032x}", topology.cluster_id));
        text.field("topology_epoch", topology.epoch);
        text.field("replication_factor", topology.replication_factor);
        text.field("joining", u8::from(own_state == Some(MemberState::Joining)));
    }
    text.field("members", view.nodes.len());
    text.field("members_up", view.nodes.iter().filter(|node| node.is_up).count());
    text.field("slots_with_quorum", view.health.ok);
    text.field("read_consistency", config.read_consistency.name());
    text.field("write_consistency", config.write_consistency.name());
    text.field("consistency_mode", "STRICT");
    text.field("workers", config.workers);
    text.field("peer_port", config.peer_port);
    let repair = cx.node.repair.load();
    let oldest = status_report::repair::oldest_seconds(&repair, cx.now, cx.node.started_at);
    text.field("anti_entropy_oldest_unverified_seconds", oldest.unwrap_or(0));
    text.field("anti_entropy_rows_sent", repair.totals.rows_sent);
    text.field("anti_entropy_rows_received", repair.totals.rows_received);
    text.field("anti_entropy_marked_slots", repair.marked);
    coordination(text, cx);
}

/// Counters of the coordinators of all workers, since the start.
fn coordination(text: &mut Text, cx: &Immediate<'_>) {
    let all = cx.node.metrics.coordinators();
    text.field("digest_mismatches", all.iter().map(|one| one.digest_mismatches).sum::<u64>());
    let repairs = all.iter().map(|one| one.repairs_blocking + one.repairs_background).sum::<u64>();
    text.field("read_repairs", repairs);
    text.field("speculative_retries", all.iter().map(|one| one.speculative_retries).sum::<u64>());
    text.field("modifies_forwarded", all.iter().map(|one| one.forwarded).sum::<u64>());
    text.field("replica_requests_served", all.iter().map(|one| one.served).sum::<u64>());
}

fn clients(text: &mut Text, cx: &Immediate<'_>, config: &Config) {
    text.section("Clients");
    text.field("connected_clients", cx.node.clients.len());
    text.field("cluster_connections", 0);
    text.field("maxclients", config.maxclients);
    text.zeros(&[
        "client_recent_max_input_buffer",
        "client_recent_max_output_buffer",
        "blocked_clients",
        "tracking_clients",
        "clients_in_timeout_table",
        "total_blocking_keys",
        "total_blocking_keys_on_nokey",
    ]);
}

/// `used_memory` is the resident set: it is what the machine lacks, caches and memtables included.
fn memory(text: &mut Text, cx: &Immediate<'_>) {
    let (process, store) = (Process::read(), cx.node.store.stats());
    text.section("Memory");
    text.size("used_memory", process.resident_bytes);
    text.size("used_memory_rss", process.resident_bytes);
    text.size("used_memory_peak", process.resident_peak_bytes);
    let percent = hundredths(process.resident_bytes.saturating_mul(100), process.resident_peak_bytes);
    text.field("used_memory_peak_perc", format_args!("{percent}%"));
    text.field("used_memory_row_cache", store.cache_bytes);
    text.field("used_memory_memtables", store.engine.memtable_bytes);
    text.field("used_memory_block_cache", store.engine.block_cache_bytes);
    text.size("total_system_memory", process.machine_bytes);
    text.size("maxmemory", 0);
    text.field("maxmemory_policy", "noeviction");
    text.field("mem_fragmentation_ratio", "1.00");
    text.zeros(&[
        "used_memory_lua",
        "used_memory_scripts",
        "number_of_cached_scripts",
        "number_of_functions",
    ]);
    text.zeros(&["mem_replication_backlog", "mem_clients_slaves", "active_defrag_running"]);
    text.field("mem_allocator", "jemalloc");
}

fn persistence(text: &mut Text, cx: &Immediate<'_>) {
    let status = if cx.node.store.poisoned().is_some() { "err" } else { "ok" };
    text.section("Persistence");
    text.zeros(&["loading", "async_loading", "current_cow_size", "current_fork_perc"]);
    text.zeros(&["rdb_changes_since_last_save", "rdb_bgsave_in_progress"]);
    text.field("rdb_last_save_time", cx.node.started_at.0 / 1000);
    text.field("rdb_last_bgsave_status", "ok");
    text.field("rdb_last_bgsave_time_sec", -1);
    text.field("rdb_current_bgsave_time_sec", -1);
    text.field("aof_enabled", 1);
    text.zeros(&["aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    text.field("aof_last_rewrite_time_sec", -1);
    text.field("aof_current_rewrite_time_sec", -1);
    text.field("aof_last_bgrewrite_status", "ok");
    text.field("aof_last_write_status", status);
}

fn stats(text: &mut Text, cx: &Immediate<'_>) {
    let metrics = &cx.node.metrics;
    let (totals, rates) =
        (metrics.totals(), metrics.rates(cx.node.time.uptime().as_millis().try_into().unwrap_or(u64::MAX)));
    text.section("Stats");
    text.field("total_connections_received", cx.node.clients.accepted.load(Ordering::Relaxed));
    text.field("total_commands_processed", totals.commands);
    text.field("instantaneous_ops_per_sec", rates.commands);
    text.field("total_net_input_bytes", totals.bytes_in);
    text.field("total_net_output_bytes", totals.bytes_out);
    text.field("instantaneous_input_kbps", hundredths(rates.bytes_in, 1024));
    text.field("instantaneous_output_kbps", hundredths(rates.bytes_out, 1024));
    text.field("rejected_connections", cx.node.clients.refused.load(Ordering::Relaxed));
    text.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    text.field("expired_keys", metrics.expired_keys());
    text.zeros(&["evicted_keys"]);
    text.zeros(&["pubsub_channels", "pubsub_patterns", "latest_fork_usec", "total_forks"]);
    text.zeros(&["tracking_total_keys", "tracking_total_items", "tracking_total_prefixes"]);
    text.field("total_error_replies", metrics.errors().iter().map(|(_, count)| count).sum::<u64>());
}

/// Every node is a primary to clients, and none has the kind of replica that Redis means.
fn replication(text: &mut Text, run_id: &str) {
    text.section("Replication");
    text.field("role", "master");
    text.field("connected_slaves", 0);
    text.field("master_failover_state", "no-failover");
    text.field("master_replid", run_id);
    text.field("master_replid2", "0".repeat(40));
    text.field("master_repl_offset", 0);
    text.field("second_repl_offset", -1);
    text.zeros(&[
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
    ]);
}

fn cpu(text: &mut Text, process: &Process) {
    let seconds = |millis: u64| format!("{}.{:03}000", millis / 1000, millis % 1000);
    text.section("CPU");
    text.field("used_cpu_sys", seconds(process.system_millis));
    text.field("used_cpu_user", seconds(process.user_millis));
    text.field("used_cpu_sys_children", seconds(0));
    text.field("used_cpu_user_children", seconds(0));
}

fn command_stats(text: &mut Text, commands: &[CommandStats]) {
    text.section("Commandstats");
    for command in commands {
        let CommandStats { name, calls, micros, rejected, failed, .. } = command;
        let per_call = hundredths(*micros, *calls);
        text.field(
            format_args!("cmdstat_{name}"),
            format_args!(
                "calls={calls},usec={micros},usec_per_call={per_call},rejected_calls={rejected},failed_calls={failed}"
            ),
        );
    }
}

fn error_stats(text: &mut Text, errors: &[(String, u64)]) {
    text.section("Errorstats");
    for (code, count) in errors {
        text.field(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latency_stats(text: &mut Text, commands: &[CommandStats]) {
    text.section("Latencystats");
    for command in commands.iter().filter(|command| command.calls > 0) {
        let micros = |percent| command.latency.percentile(percent);
        text.field(
            format_args!("latency_percentiles_usec_{}", command.name),
            format_args!("p50={}.000,p99={}.000,p99.9={}.000", micros(50.0), micros(99.0), micros(99.9)),
        );
    }
}

fn cluster_mode(text: &mut Text, config: &Config) {
    text.section("Cluster");
    text.field("cluster_enabled", u8::from(config.client_mode == ClientMode::Cluster));
}

/// Redis lists keys by database here. Writes are blind, so that no such count is kept: `DBSIZE` counts.
fn keyspace(text: &mut Text, cx: &Immediate<'_>) {
    text.section("Keyspace");
    text.field("rows_estimated", cx.node.store.stats().engine.rows_estimated);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Text)) -> String {
        let mut text = Text::default();
        write(&mut text);
        String::from_utf8(text.into_bytes()).unwrap()
    }

    #[test]
    fn statistics_by_command_are_in_the_words_of_redis() {
        let get = CommandStats {
            name: "get",
            calls: 3,
            micros: 10,
            rejected: 1,
            failed: 0,
            ..CommandStats::default()
        };
        assert_eq!(
            written(|text| command_stats(text, &[get])),
            "# Commandstats\r\ncmdstat_get:calls=3,usec=10,usec_per_call=3.33,rejected_calls=1,failed_calls=0\r\n"
        );
        assert_eq!(
            written(|text| error_stats(text, &[("ERR".into(), 2)])),
            "# Errorstats\r\nerrorstat_ERR:count=2\r\n"
        );
    }

    #[test]
    fn a_command_that_was_only_refused_has_no_latency() {
        let refused = CommandStats { name: "get", rejected: 1, ..CommandStats::default() };
        assert_eq!(written(|text| latency_stats(text, &[refused])), "# Latencystats\r\n");
    }

    #[test]
    fn the_mode_follows_the_setting() {
        let config = Config { client_mode: ClientMode::Cluster, ..Config::default() };
        assert_eq!(written(|text| cluster_mode(text, &config)), "# Cluster\r\ncluster_enabled:1\r\n");
        assert!(written(|text| cluster_mode(text, &Config::default())).ends_with("cluster_enabled:0\r\n"));
    }

    #[test]
    fn processor_time_is_in_seconds() {
        let process = Process { user_millis: 1_230, system_millis: 4_005, ..Process::default() };
        let text = written(|text| cpu(text, &process));
        assert!(text.contains("used_cpu_user:1.230000\r\n") && text.contains("used_cpu_sys:4.005000\r\n"));
    }
}
