//! CONFIG GET and CONFIG SET: the settings, and the parameters of Redis that clients and tools read.

use gyre_protocol::glob;

use super::Config;
use super::error::{ConfigError, Origin};
use super::load::{apply, closest};
use super::rules;
use super::table::{SETTINGS, find};
use super::value::{ClientMode, LogLevel};

/// Parameters of Redis that have one value here. Setting them to that value succeeds, to another fails: a client that
/// asks for an eviction policy or keyspace events must not believe it got them.
const FIXED: &[(&str, &str)] = &[
    ("active-expire-effort", "1"),
    ("activedefrag", "no"),
    ("activerehashing", "yes"),
    ("appendfilename", "appendonly.aof"),
    ("appendonly", "yes"),
    ("auto-aof-rewrite-percentage", "0"),
    ("client-query-buffer-limit", "1073741824"),
    ("cluster-allow-reads-when-down", "no"),
    ("cluster-node-timeout", "15000"),
    ("cluster-require-full-coverage", "no"),
    ("daemonize", "no"),
    ("dbfilename", ""),
    ("hash-max-listpack-entries", "128"),
    ("hash-max-listpack-value", "64"),
    ("hash-max-ziplist-entries", "128"),
    ("hash-max-ziplist-value", "64"),
    ("hll-sparse-max-bytes", "3000"),
    ("hz", "10"),
    ("io-threads", "1"),
    ("latency-tracking", "yes"),
    ("lazyfree-lazy-user-del", "yes"),
    ("lazyfree-lazy-user-flush", "yes"),
    ("lfu-decay-time", "1"),
    ("lfu-log-factor", "10"),
    ("list-compress-depth", "0"),
    ("list-max-listpack-size", "-2"),
    ("list-max-ziplist-size", "-2"),
    ("logfile", ""),
    ("lua-time-limit", "5000"),
    ("maxmemory", "0"),
    ("maxmemory-clients", "0"),
    ("maxmemory-policy", "noeviction"),
    ("maxmemory-samples", "5"),
    ("min-replicas-to-write", "0"),
    ("notify-keyspace-events", ""),
    ("pidfile", ""),
    ("proto-inline-max-size", "65536"),
    ("rdbchecksum", "yes"),
    ("rdbcompression", "yes"),
    ("repl-backlog-size", "0"),
    ("replica-read-only", "yes"),
    ("replica-serve-stale-data", "yes"),
    ("replicaof", ""),
    ("save", ""),
    ("set-max-intset-entries", "512"),
    ("set-max-listpack-entries", "128"),
    ("set-max-listpack-value", "64"),
    ("slave-read-only", "yes"),
    ("slaveof", ""),
    ("stop-writes-on-bgsave-error", "no"),
    ("stream-node-max-bytes", "4096"),
    ("stream-node-max-entries", "100"),
    ("supervised", "no"),
    ("tls-port", "0"),
    ("unixsocket", ""),
    ("zset-max-listpack-entries", "128"),
    ("zset-max-listpack-value", "64"),
    ("zset-max-ziplist-entries", "128"),
    ("zset-max-ziplist-value", "64"),
];

impl Config {
    /// What CONFIG GET answers for one glob pattern: names in lower case with their values, by name. The cluster secret
    /// is not among them.
    pub fn get(&self, pattern: &str) -> Vec<(&'static str, String)> {
        let pattern = pattern.to_ascii_lowercase();
        let mut found = self.parameters();
        found.retain(|(name, _)| glob::matches(pattern.as_bytes(), name.as_bytes()));
        found.sort_unstable();
        found
    }

    /// CONFIG SET of one parameter. Nothing changes on an error.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let lower = name.to_ascii_lowercase();
        if let Some((name, only)) = self.fixed().into_iter().find(|(fixed, _)| *fixed == lower) {
            return if value == only { Ok(()) } else { Err(ConfigError::Fixed { name, value: only }) };
        }
        let (lower, value) = match lower.as_str() {
            "loglevel" => ("log-level", redis_log_level(value)),
            other => (other, value),
        };
        let Some(setting) = find(lower) else {
            let origin = Origin::Command(name.into());
            return Err(ConfigError::Unknown { closest: closest(lower), origin });
        };
        if !setting.runtime {
            return Err(ConfigError::Immutable { name: setting.name });
        }
        apply(self, setting, value, Origin::Command(setting.name.into()))?;
        self.changed.insert(setting.name);
        Ok(())
    }

    /// CONFIG SET of several parameters: all or none. The caller publishes the result.
    pub fn with(&self, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut changed = self.clone();
        for (name, value) in pairs {
            changed.set(name, value)?;
        }
        rules::check(&changed)?;
        Ok(changed)
    }

    fn parameters(&self) -> Vec<(&'static str, String)> {
        let settings = SETTINGS.iter().filter(|setting| setting.name != "cluster-secret");
        let mut all: Vec<(&'static str, String)> =
            settings.map(|setting| (setting.name, (setting.read)(self))).collect();
        all.extend(self.fixed());
        all.push(("loglevel", redis_log_level_of(self.log_level).to_string()));
        all
    }

    /// [`FIXED`], and those fixed parameters whose value follows from a setting.
    fn fixed(&self) -> Vec<(&'static str, String)> {
        let cluster = if self.client_mode == ClientMode::Cluster { "yes" } else { "no" };
        let mut all: Vec<(&'static str, String)> =
            FIXED.iter().map(|(name, value)| (*name, value.to_string())).collect();
        all.push(("cluster-enabled", cluster.to_string()));
        all.push(("cluster-announce-ip", self.announce_host.clone().unwrap_or_default()));
        all.push(("cluster-announce-port", self.announce_port.unwrap_or(0).to_string()));
        all.push(("cluster-port", self.peer_port.to_string()));
        all
    }
}

/// Redis's `loglevel` names among ours; other texts as they are.
fn redis_log_level(value: &str) -> &str {
    match value.to_ascii_lowercase().as_str() {
        "notice" => "info",
        "verbose" => "debug",
        "warning" => "warn",
        "nothing" => "error",
        _ => value,
    }
}

fn redis_log_level_of(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error | LogLevel::Warn => "warning",
        LogLevel::Info => "notice",
        LogLevel::Debug => "verbose",
        LogLevel::Trace => "debug",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Secret;

    fn value(config: &Config, name: &str) -> String {
        let found = config.get(name);
        assert_eq!(found.len(), 1, "{name}");
        found[0].1.clone()
    }

    #[test]
    fn config_get_answers_what_tools_ask() {
        let config = Config::default();
        for (name, expected) in [
            ("save", ""),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("maxmemory", "0"),
            ("databases", "16"),
            ("proto-max-bulk-len", "536870912"),
            ("TIMEOUT", "0"),
            ("replica-read-only", "yes"),
            ("cluster-enabled", "no"),
            ("loglevel", "notice"),
            ("requirepass", ""),
            ("bind", "0.0.0.0"),
        ] {
            assert_eq!(value(&config, name), expected, "{name}");
        }
        assert!(config.get("nonesuch").is_empty());
        let names: Vec<&str> = config.get("maxmemory*").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["maxmemory", "maxmemory-clients", "maxmemory-policy", "maxmemory-samples"]);
    }

    #[test]
    fn parameters_have_one_value_each_and_the_secret_none() {
        let config = Config { cluster_secret: Secret::new("s3cret"), ..Config::default() };
        let all = config.get("*");
        let names: BTreeSet<&str> = all.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|(name, value)| *name != "cluster-secret" && value != "s3cret"));
        assert!(all.len() > SETTINGS.len());
    }

    #[test]
    fn config_set_changes_runtime_settings_and_remembers_them() {
        let mut config = Config::default();
        config.set("MaxClients", "7").unwrap();
        config.set("loglevel", "verbose").unwrap();
        config.set("requirepass", "p").unwrap();
        assert_eq!((config.maxclients, config.log_level), (7, LogLevel::Debug));
        assert!(config.requirepass.matches(b"p"));
        assert_eq!(
            config.changed.iter().copied().collect::<Vec<_>>(),
            ["log-level", "maxclients", "requirepass"]
        );
    }

    #[test]
    fn config_set_refuses_in_redis_words() {
        let mut config = Config::default();
        let mut refuse = |name: &str, value: &str| config.set(name, value).unwrap_err().reply_text();
        assert_eq!(
            refuse("nonesuch", "1"),
            "ERR Unknown option or number of arguments for CONFIG SET - 'nonesuch'"
        );
        assert_eq!(
            refuse("port", "1"),
            "ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config"
        );
        assert_eq!(
            refuse("maxclients", "x"),
            "ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be a number from 1 to 1000000"
        );
        assert!(
            refuse("maxmemory-policy", "allkeys-lru")
                .ends_with("Gyre keeps maxmemory-policy at 'noeviction'")
        );
    }

    #[test]
    fn setting_a_fixed_parameter_to_its_value_succeeds() {
        let mut config = Config::default();
        config.set("save", "").unwrap();
        config.set("appendonly", "yes").unwrap();
        assert!(config.changed.is_empty());
    }

    #[test]
    fn config_set_of_several_changes_all_or_none() {
        let config = Config::default();
        let changed = config.with(&[("maxclients", "5"), ("timeout", "9")]).unwrap();
        assert_eq!((changed.maxclients, changed.timeout_seconds), (5, 9));
        assert!(config.with(&[("maxclients", "5"), ("timeout", "soon")]).is_err());
    }
}
