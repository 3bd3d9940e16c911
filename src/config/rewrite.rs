//! CONFIG REWRITE: the settings back into the file they came from.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use toml_edit::{Array, DocumentMut, Item, value};

use super::Config;
use super::error::ConfigError;
use super::load::{item_text, read_document};
use super::table::{SETTINGS, Setting};

impl Config {
    /// Writes what differs from the defaults, and what CONFIG SET changed, into the file of `--config`. Comments, order
    /// and what did not change stay as they are. The new file is complete on the disk before it takes the old one's
    /// place, and keeps its permissions. A password that came by flag or variable stays out of the file.
    pub fn rewrite(&self) -> Result<(), ConfigError> {
        let path = self.file.as_deref().ok_or(ConfigError::NoFile)?;
        let mut document = read_document(path)?;
        self.write_into(&mut document);
        replace(path, document.to_string().as_bytes())
            .map_err(|source| ConfigError::Access { path: path.to_path_buf(), source })
    }

    fn write_into(&self, document: &mut DocumentMut) {
        let defaults = Config::default();
        for setting in SETTINGS {
            let text = (setting.read)(self);
            let present = document.get(setting.name);
            if present.is_some_and(|item| self.says(setting, item, &text)) {
                continue;
            }
            let changed = self.changed.contains(setting.name);
            let differs = text != (setting.read)(&defaults) && !setting.is_secret() && !self.derived(setting);
            if present.is_some() || changed || differs {
                document[setting.name] = toml_item(setting, &text);
            }
        }
    }

    /// Whether the file's `item` already gives the setting this value, perhaps in other words (`64mb`).
    fn says(&self, setting: &Setting, item: &Item, text: &str) -> bool {
        let mut parsed = Config::default();
        let written = item_text(item).and_then(|item| (setting.write)(&mut parsed, &item));
        written.is_some() && (setting.read)(&parsed) == text
    }

    /// Whether the value follows from another one or from the machine, so that writing it would freeze it.
    fn derived(&self, setting: &Setting) -> bool {
        match setting.name {
            "peer-port" => Some(self.peer_port) == self.port.checked_add(super::PEER_PORT_OFFSET),
            "workers" => std::thread::available_parallelism().is_ok_and(|cores| cores.get() == self.workers),
            _ => false,
        }
    }
}

/// `text` as the TOML that reads best: numbers bare, lists as arrays, all else quoted.
fn toml_item(setting: &Setting, text: &str) -> Item {
    if setting.name == "seeds" {
        return value(text.split(',').filter(|seed| !seed.is_empty()).collect::<Array>());
    }
    match text.parse::<i64>() {
        Ok(number) if !setting.is_secret() => value(number),
        _ => value(text),
    }
}

/// Puts `bytes` in place of the file at `path`, all or nothing.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A symbolic link stays one: its target is replaced.
    let path = fs::canonicalize(path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = write_new(&temporary, &path, bytes).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| fs::File::open(directory)?.sync_all())
}

fn write_new(temporary: &Path, old: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(temporary)?;
    file.set_permissions(fs::metadata(old)?.permissions())?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn loaded(text: &str, flags: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gyre.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut all = vec![("config".to_string(), path.to_str().unwrap().to_string())];
        all.extend(flags.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        (dir, Config::load(all, []).unwrap())
    }

    #[test]
    fn a_rewrite_keeps_comments_and_adds_what_changed() {
        let (dir, mut config) =
            loaded("# ours\nmemtable-size = \"32mb\" # small\nmaxclients = 10\n", &[("databases", "4")]);
        config.set("maxclients", "20").unwrap();
        config.set("requirepass", "12345").unwrap();
        config.rewrite().unwrap();
        let path = dir.path().join("gyre.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# ours\nmemtable-size = \"32mb\" # small\nmaxclients = 20\nrequirepass = \"12345\"\ndatabases = 4\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
        let again = Config::load([("config".to_string(), path.to_str().unwrap().to_string())], []).unwrap();
        assert_eq!((again.maxclients, again.databases, again.memtable_size), (20, 4, 32 << 20));
        assert!(again.requirepass.matches(b"12345"));
    }

    #[test]
    fn passwords_given_by_flag_stay_out_of_the_file() {
        let (dir, config) =
            loaded("", &[("requirepass", "p"), ("cluster-secret", "s"), ("seeds", "a:1,b:2")]);
        config.rewrite().unwrap();
        let text = fs::read_to_string(dir.path().join("gyre.toml")).unwrap();
        assert_eq!(text, "seeds = [\"a:1\", \"b:2\"]\n");
    }

    #[test]
    fn a_rewrite_without_a_file_is_refused_as_in_redis() {
        let error = Config::default().rewrite().unwrap_err();
        assert_eq!(error.reply_text(), "ERR The server is running without a config file");
    }
}
