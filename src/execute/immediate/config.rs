//! `CONFIG …`: the settings of this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use gyre_protocol::{Args, Reply};

use crate::config::Config;
use crate::execute::immediate::words::refusal;
use crate::execute::{Answer, CommandError};

/// `CONFIG GET pattern …`: each parameter once, however many patterns it matches.
pub fn get(config: &Config, args: Args<'_>) -> Reply {
    let patterns = args.from(2).into_iter().map(String::from_utf8_lossy);
    let found: BTreeMap<&'static str, String> = patterns.flat_map(|pattern| config.get(&pattern)).collect();
    Reply::Map(found.into_iter().map(|(name, value)| (Reply::text(name), Reply::text(value))).collect())
}

/// `CONFIG SET parameter value …`: all or none.
pub fn set(config: &ArcSwap<Config>, args: Args<'_>) -> Answer {
    let pairs = pairs(args)?;
    let pairs: Vec<(&str, &str)> =
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // Repeated only when another worker has changed a setting in between.
    loop {
        let current = config.load_full();
        let changed = current.with(&pairs).map_err(|error| refusal(error.reply_text()))?;
        let before = config.compare_and_swap(&current, Arc::new(changed));
        if Arc::ptr_eq(&before, &current) {
            crate::logging::set_level(config.load().log_level);
            return Ok(Reply::Ok);
        }
    }
}

/// `CONFIG REWRITE`.
pub fn rewrite(config: &Config) -> Answer {
    config.rewrite().map_err(|error| refusal(error.reply_text()))?;
    Ok(Reply::Ok)
}

fn pairs(args: Args<'_>) -> Result<Vec<(String, String)>, CommandError> {
    let words: Vec<&[u8]> = args.from(2).into_iter().collect();
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            return Err(CommandError::text("ERR wrong number of arguments for 'config|set' command"));
        };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if pairs.iter().any(|(earlier, _)| *earlier == name) {
            return Err(failed(&name, "duplicate parameter"));
        }
        let value = std::str::from_utf8(value).map_err(|_| failed(&name, "argument must be UTF-8"))?;
        pairs.push((name, value.to_string()));
    }
    Ok(pairs)
}

fn failed(name: &str, why: &str) -> CommandError {
    refusal(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
}

#[cfg(test)]
mod tests {
    use gyre_protocol::OwnedArgs;

    use super::*;

    fn args(line: &str) -> OwnedArgs {
        line.split_whitespace().collect()
    }

    fn text(answer: Answer) -> String {
        match answer {
            Err(CommandError::Text(text)) => text.into_owned(),
            other => panic!("not an error text: {other:?}"),
        }
    }

    #[test]
    fn several_patterns_answer_each_parameter_once() {
        let reply = get(&Config::default(), args("CONFIG GET save SAVE databases sa?e").args());
        let expected = [("databases", "16"), ("save", "")];
        assert_eq!(
            reply,
            Reply::Map(
                expected.iter().map(|(name, value)| (Reply::text(*name), Reply::text(*value))).collect()
            )
        );
    }

    #[test]
    fn set_changes_all_or_none() {
        let config = ArcSwap::from_pointee(Config::default());
        assert_eq!(set(&config, args("CONFIG SET maxclients 5 timeout 9").args()), Ok(Reply::Ok));
        assert_eq!(config.load().maxclients, 5);
        assert!(set(&config, args("CONFIG SET maxclients 6 timeout soon").args()).is_err());
        assert_eq!(config.load().maxclients, 5);
    }

    #[test]
    fn set_refuses_what_redis_refuses() {
        let config = ArcSwap::from_pointee(Config::default());
        assert_eq!(
            text(set(&config, args("CONFIG SET maxclients 5 timeout").args())),
            "ERR wrong number of arguments for 'config|set' command"
        );
        assert_eq!(
            text(set(&config, args("CONFIG SET maxclients 5 MAXCLIENTS 6").args())),
            "ERR CONFIG SET failed (possibly related to argument 'maxclients') - duplicate parameter"
        );
        assert_eq!(
            text(set(&config, args("CONFIG SET foo bar").args())),
            "ERR Unknown option or number of arguments for CONFIG SET - 'foo'"
        );
    }

    #[test]
    fn rewrite_needs_a_file() {
        assert_eq!(text(rewrite(&Config::default())), "ERR The server is running without a config file");
    }
}
