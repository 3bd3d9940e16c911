//! The sources of settings merged: flags, environment, file, defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Value};

use super::Config;
use super::error::{ConfigError, Origin};
use super::rules;
use super::table::{SETTINGS, Setting, find};

/// What all variables that are read begin with.
pub const VARIABLE_PREFIX: &str = "GYRE_";

/// The name of the flag, and of the variable, that names the file.
const FILE_SETTING: &str = "config";

/// A value of a setting and where it stood.
type Given = BTreeMap<&'static str, (Origin, String)>;

impl Config {
    /// The settings from `flags` (names without dashes in front), `variables` of the environment (those that do not
    /// begin with `GYRE_` are ignored), the file that either names as `config`, and the defaults.
    pub fn load(
        flags: impl IntoIterator<Item = (String, String)>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut file = None;
        let mut from_environment = Given::new();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix(VARIABLE_PREFIX) else { continue };
            let name = name.to_ascii_lowercase().replace('_', "-");
            if name == FILE_SETTING {
                file = Some(PathBuf::from(value));
            } else {
                insert(&mut from_environment, &name, Origin::Variable(variable), value)?;
            }
        }
        let mut from_flags = Given::new();
        for (name, value) in flags {
            if name == FILE_SETTING {
                file = Some(PathBuf::from(value));
            } else {
                insert(&mut from_flags, &name, Origin::Flag(name.clone()), value)?;
            }
        }
        let mut given = file.as_deref().map(read_file).transpose()?.unwrap_or_default();
        given.extend(from_environment);
        given.extend(from_flags);

        let mut config = Config { file, ..Config::default() };
        // In the order of the table, not of the sources: the peer port follows the port.
        for setting in SETTINGS {
            if let Some((origin, value)) = given.remove(setting.name) {
                apply(&mut config, setting, &value, origin)?;
            }
        }
        if config.workers == 0 {
            config.workers = std::thread::available_parallelism().map_or(1, usize::from);
        }
        rules::check(&config)?;
        Ok(config)
    }
}

/// Sets one setting from text.
pub(super) fn apply(
    config: &mut Config,
    setting: &Setting,
    value: &str,
    origin: Origin,
) -> Result<(), ConfigError> {
    (setting.write)(config, value).ok_or_else(|| ConfigError::BadValue {
        origin,
        value: if setting.is_secret() { "<hidden>".into() } else { value.into() },
        expected: setting.expected,
    })
}

fn insert(given: &mut Given, name: &str, origin: Origin, value: String) -> Result<(), ConfigError> {
    let Some(setting) = find(name) else {
        return Err(ConfigError::Unknown { closest: closest(name), origin });
    };
    given.insert(setting.name, (origin, value));
    Ok(())
}

/// The setting whose name is most like `name`, if any is.
pub(super) fn closest(name: &str) -> Option<&'static str> {
    let names = SETTINGS.iter().map(|setting| (strsim::jaro_winkler(setting.name, name), setting.name));
    names.filter(|(likeness, _)| *likeness > 0.85).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

fn read_file(path: &Path) -> Result<Given, ConfigError> {
    let document = read_document(path)?;
    let mut given = Given::new();
    for (key, item) in document.iter() {
        let origin = Origin::file(path, key);
        let Some(setting) = find(key).filter(|setting| setting.name == key) else {
            return Err(ConfigError::Unknown { closest: closest(key), origin });
        };
        let value = item.as_value().and_then(text_of).ok_or_else(|| ConfigError::BadValue {
            origin: origin.clone(),
            value: if setting.is_secret() { "<hidden>".into() } else { item.to_string().trim().into() },
            expected: setting.expected,
        })?;
        given.insert(setting.name, (origin, value));
    }
    Ok(given)
}

/// The TOML document at `path`.
pub(super) fn read_document(path: &Path) -> Result<DocumentMut, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Access { path: path.to_path_buf(), source })?;
    text.parse().map_err(|error: toml_edit::TomlError| ConfigError::Syntax {
        path: path.to_path_buf(),
        reason: error.to_string().trim().to_string(),
    })
}

/// The text of an item, as the table's parsers take it.
pub(super) fn item_text(item: &Item) -> Option<String> {
    item.as_value().and_then(text_of)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Boolean(flag) => Some(if *flag.value() { "yes" } else { "no" }.into()),
        Value::Array(values) => {
            let words: Option<Vec<String>> =
                values.iter().map(|value| value.as_str().map(str::to_string)).collect();
            Some(words?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use gyre_cluster::level::Consistency;

    use super::*;

    fn load(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        Config::load(own(flags), own(variables))
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
        let file = file("port = 1\nmaxclients = 1\ndatabases = 1\n");
        let path = file.path().to_str().unwrap();
        let config = load(
            &[("config", path), ("port", "3")],
            &[("GYRE_PORT", "2"), ("GYRE_MAXCLIENTS", "2"), ("HOME", "/"), ("GYRENE", "x")],
        )
        .unwrap();
        assert_eq!((config.port, config.maxclients, config.databases, config.vnodes), (3, 2, 1, 150));
        assert_eq!(config.file.as_deref(), Some(file.path()));
        assert_eq!(load(&[], &[("GYRE_CONFIG", path)]).unwrap().maxclients, 1);
    }

    #[test]
    fn the_file_takes_the_natural_kinds_of_toml() {
        let file = file(concat!(
            "# a comment\nseeds = [\"a:1\", \"b:2\"]\nprotected-mode = false\nmemtable-size = \"32mb\"\n",
            "read-consistency = \"ONE\"\nslowlog-log-slower-than = -1\ncluster-secret = 's'\n"
        ));
        let config = load(&[("config", file.path().to_str().unwrap())], &[]).unwrap();
        assert_eq!(config.seeds.len(), 2);
        assert!(!config.protected_mode);
        assert_eq!(config.memtable_size, 32 << 20);
        assert_eq!(config.read_consistency, Consistency::One);
        assert_eq!(config.slowlog_log_slower_than_micros, -1);
    }

    fn refusal(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
        load(flags, variables).unwrap_err().to_string()
    }

    #[test]
    fn unknown_names_are_refused_with_their_place() {
        assert_eq!(
            refusal(&[("prt", "1")], &[]),
            "unknown setting: --prt on the command line (did you mean port?)"
        );
        let text = refusal(&[], &[("GYRE_MAX_CLIENTS", "1")]);
        assert_eq!(text, "unknown setting: GYRE_MAX_CLIENTS in the environment (did you mean maxclients?)");
        let file = file("colour = 1\n");
        let path = file.path().to_str().unwrap();
        assert_eq!(refusal(&[("config", path)], &[]), format!("unknown setting: colour in {path}"));
    }

    #[test]
    fn bad_values_are_refused_with_their_place_and_what_they_should_be() {
        let text = refusal(&[("port", "many")], &[]);
        assert_eq!(text, "bad value for --port on the command line: 'many'; it must be a port, 1 to 65535");
        let text = refusal(&[], &[("GYRE_APPENDFSYNC", "hourly")]);
        assert!(text.contains("GYRE_APPENDFSYNC in the environment: 'hourly'"), "{text}");
        for (line, shown) in [
            ("port = 1.5", "port in"),
            ("[port]\nx = 1", "port in"),
            ("seeds = [1]", "seeds in"),
            ("port = \"\"", "port in"),
        ] {
            let file = file(line);
            let text = refusal(&[("config", file.path().to_str().unwrap())], &[]);
            assert!(text.starts_with(&format!("bad value for {shown}")), "{text}");
        }
        let file = file("requirepass = 1.5");
        let text = refusal(&[("config", file.path().to_str().unwrap())], &[]);
        assert!(text.contains("<hidden>") && !text.contains("1.5"), "{text}");
    }

    #[test]
    fn a_missing_or_broken_file_is_refused_by_name() {
        assert!(refusal(&[("config", "/nonexistent/g.toml")], &[]).contains("/nonexistent/g.toml"));
        let file = file("port = \n");
        let text = refusal(&[("config", file.path().to_str().unwrap())], &[]);
        assert!(text.contains("not valid TOML") && text.contains("line 1"), "{text}");
    }

    #[test]
    fn workers_default_to_the_cores() {
        assert!(load(&[], &[]).unwrap().workers >= 1);
        assert_eq!(load(&[("workers", "3")], &[]).unwrap().workers, 3);
    }
}
