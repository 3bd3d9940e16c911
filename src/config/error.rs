//! Why a setting was refused: which one, where it stood, what it should be.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where a setting stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--name` on the command line.
    Flag(String),
    /// `GYRE_NAME` in the environment.
    Variable(String),
    /// A key of the TOML file.
    File {
        /// The file.
        path: PathBuf,
        /// The key as written there.
        key: String,
    },
    /// `CONFIG SET`.
    Command(String),
}

impl Origin {
    /// The origin of key `key` of the file at `path`.
    pub fn file(path: &Path, key: &str) -> Origin {
        Origin::File { path: path.to_path_buf(), key: key.into() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "--{name} on the command line"),
            Origin::Variable(name) => write!(f, "{name} in the environment"),
            Origin::File { path, key } => write!(f, "{key} in {}", path.display()),
            Origin::Command(name) => write!(f, "{name} in CONFIG SET"),
        }
    }
}

/// Why settings were refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no setting of that name.
    #[error("unknown setting: {origin}{}", suggestion(.closest))]
    Unknown {
        /// Where it stood.
        origin: Origin,
        /// The setting that was perhaps meant.
        closest: Option<&'static str>,
    },
    /// The value is not of the setting's kind.
    #[error("bad value for {origin}: '{value}'; it must be {expected}")]
    BadValue {
        /// Where it stood.
        origin: Origin,
        /// The refused value; `<hidden>` for passwords.
        value: String,
        /// What the value should be.
        expected: &'static str,
    },
    /// The setting cannot change while the node runs.
    #[error("{name} can't be changed while the node runs")]
    Immutable {
        /// The setting.
        name: &'static str,
    },
    /// The parameter exists for Redis's clients only and has one value.
    #[error("Gyre keeps {name} at '{value}'")]
    Fixed {
        /// The parameter.
        name: &'static str,
        /// Its only value.
        value: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {reason}", path = .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the TOML parser says, with the line.
        reason: String,
    },
    /// The file could not be read or written.
    #[error("cannot access {path}: {source}", path = .path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// CONFIG REWRITE without `--config`.
    #[error("The server is running without a config file")]
    NoFile,
}

impl ConfigError {
    /// The error of `CONFIG SET` or `CONFIG REWRITE` in RESP, code included, in Redis's words where it has some.
    pub fn reply_text(&self) -> String {
        match self {
            ConfigError::Unknown { origin: Origin::Command(name), .. } => {
                format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            ConfigError::BadValue { origin: Origin::Command(name), expected, .. } => {
                format!(
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - argument must be {expected}"
                )
            }
            ConfigError::Immutable { name } => format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config"
            ),
            ConfigError::Fixed { name, .. } => {
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {self}")
            }
            ConfigError::Access { source, .. } => format!("ERR Rewriting config file: {source}"),
            other => format!("ERR {other}"),
        }
    }
}

fn suggestion(closest: &Option<&'static str>) -> String {
    closest.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}
