//! The log: lines for people or JSON for machines, on standard error; and what a node says when it starts.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Config, LogFormat, LogLevel, peer_bind_address};
use crate::node::Node;

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts the log of this process. A second call changes the level only.
pub fn start(level: LogLevel, format: LogFormat) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let layer = match format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).boxed(),
    };
    // Fails only if this process has a log already.
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    } else {
        set_level(level);
    }
}

/// Changes what is logged (`CONFIG SET log-level`).
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // Fails only if the log is gone.
        let _ = handle.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Says who this node is, where it listens and how it is protected.
pub fn banner(node: &Node) {
    let config = node.config.load();
    let peers = peer_bind_address(&config).map_or_else(|_| String::new(), |address| address.to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        node = %node.id,
        cluster = config.cluster_name,
        clients = format!("{}:{}", config.bind, config.port),
        peers = format!("{peers}:{}", config.peer_port),
        http = config.http_port.map(|port| format!("{}:{port}", config.bind)),
        dir = %config.dir.display(),
        workers = config.workers,
        appendfsync = crate::config::table::show_fsync(&config.appendfsync),
        replication_factor = config.replication_factor,
        formed = node.has_formed(),
        "Gyre starts"
    );
    for remark in remarks(&config) {
        tracing::warn!("{remark}");
    }
}

/// What an operator should know about the protection of this node.
fn remarks(config: &Config) -> Vec<String> {
    let mut remarks = Vec::new();
    let open = !config.bind.is_loopback() && config.requirepass.is_empty();
    if open && config.protected_mode {
        remarks.push(
            "no password is set: clients from other machines are turned away (see protected-mode)".into(),
        );
    }
    if open && !config.protected_mode {
        remarks.push(format!(
            "anyone who reaches {}:{} can read and write everything",
            config.bind, config.port
        ));
    }
    if config.cluster_secret.is_empty() && !config.seeds.is_empty() {
        remarks.push("no cluster-secret is set: only nodes on this machine can be peers".into());
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPort, Secret};

    #[test]
    fn remarks_name_what_is_unprotected() {
        let loopback = Config { bind: "127.0.0.1".parse().unwrap(), ..Config::default() };
        assert!(remarks(&loopback).is_empty());
        assert!(remarks(&Config::default())[0].contains("turned away"));
        let open = Config { protected_mode: false, ..Config::default() };
        assert!(remarks(&open)[0].contains("anyone"));
        let guarded = Config { requirepass: Secret::new("p"), ..Config::default() };
        assert!(remarks(&guarded).is_empty());
        let seeds = vec![HostPort { host: "localhost".into(), port: 1 }];
        assert!(remarks(&Config { seeds, ..guarded })[0].contains("cluster-secret"));
    }
}
