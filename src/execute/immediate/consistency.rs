//! `CONSISTENCY`, `READONLY`, `READWRITE`, `ASKING`: how many replicas a connection waits for, and whose answers count.

use gyre_cluster::level::{Consistency, Quorums};
use gyre_protocol::{Args, Reply};

use crate::execute::immediate::words::{is, refusal, shown};
use crate::execute::{Answer, CommandError};
use crate::session::settings::{Levels, SessionSettings};

/// `CONSISTENCY [READ] [WRITE] ONE|QUORUM|ALL … [SLOPPY|STRICT]`: sets the levels of this connection. A level without
/// READ or WRITE before it is for both, the mode always is. Without arguments: what is in force.
pub fn consistency(settings: &mut SessionSettings, args: Args<'_>) -> Answer {
    if args.len() < 2 {
        return Ok(report(settings.levels));
    }
    let chosen = parse(args)?;
    if let Some(read) = chosen.read {
        settings.levels.read = read;
        settings.levels_before_readonly = None;
    }
    if let Some(write) = chosen.write {
        settings.levels.write = write;
    }
    if let Some(quorums) = chosen.quorums {
        settings.levels.quorums = quorums;
    }
    Ok(Reply::Ok)
}

/// `READONLY`: reads at ONE until `READWRITE`.
pub fn readonly(settings: &mut SessionSettings) -> Reply {
    if settings.levels_before_readonly.is_none() {
        settings.levels_before_readonly = Some(settings.levels);
        settings.levels.read = Consistency::One;
    }
    Reply::Ok
}

/// `READWRITE`: reads at the level in force before `READONLY`.
pub fn readwrite(settings: &mut SessionSettings) -> Reply {
    if let Some(before) = settings.levels_before_readonly.take() {
        settings.levels.read = before.read;
    }
    Reply::Ok
}

fn report(levels: Levels) -> Reply {
    Reply::map([
        ("read", Reply::text(levels.read.name())),
        ("write", Reply::text(levels.write.name())),
        ("mode", Reply::text(levels.quorums.name())),
    ])
}

/// What the arguments of `CONSISTENCY` choose.
#[derive(Debug, Default, PartialEq)]
struct Chosen {
    read: Option<Consistency>,
    write: Option<Consistency>,
    quorums: Option<Quorums>,
}

fn parse(args: Args<'_>) -> Result<Chosen, CommandError> {
    let mut chosen = Chosen::default();
    let (mut read, mut write) = (false, false);
    for arg in args.from(1) {
        if is(arg, "READ") {
            read = true;
        } else if is(arg, "WRITE") {
            write = true;
        } else if is(arg, Quorums::Sloppy.name()) {
            chosen.quorums = Some(Quorums::Sloppy);
        } else if is(arg, Quorums::Strict.name()) {
            chosen.quorums = Some(Quorums::Strict);
        } else {
            let level = level(arg)?;
            let both = !read && !write;
            if read || both {
                chosen.read = Some(level);
            }
            if write || both {
                chosen.write = Some(level);
            }
            (read, write) = (false, false);
        }
    }
    if read || write { Err(CommandError::SYNTAX) } else { Ok(chosen) }
}

/// The level that `name` names, in any case.
fn level(name: &[u8]) -> Result<Consistency, CommandError> {
    [Consistency::One, Consistency::Quorum, Consistency::All]
        .into_iter()
        .find(|level| is(name, level.name()))
        .ok_or_else(|| {
            refusal(format!("ERR unknown consistency level '{}', use ONE, QUORUM or ALL", shown(name)))
        })
}

#[cfg(test)]
mod tests {
    use gyre_protocol::OwnedArgs;

    use super::*;
    use crate::execute::immediate::fixtures::settings;

    fn run(settings: &mut SessionSettings, line: &str) -> Answer {
        let args: OwnedArgs = line.split_whitespace().collect();
        consistency(settings, args.args())
    }

    #[test]
    fn a_level_is_for_what_stands_before_it_and_else_for_both() {
        use Consistency::{All, One, Quorum};
        use Quorums::{Sloppy, Strict};
        for (line, read, write, quorums) in [
            ("CONSISTENCY ONE", One, One, Sloppy),
            ("consistency read all", All, Quorum, Sloppy),
            ("CONSISTENCY WRITE ALL STRICT", Quorum, All, Strict),
            ("CONSISTENCY strict READ ONE WRITE ALL", One, All, Strict),
            ("CONSISTENCY READ WRITE ALL sloppy", All, All, Sloppy),
            ("CONSISTENCY STRICT", Quorum, Quorum, Strict),
            ("CONSISTENCY STRICT SLOPPY", Quorum, Quorum, Sloppy),
        ] {
            let mut settings = settings();
            assert_eq!(run(&mut settings, line), Ok(Reply::Ok), "{line}");
            assert_eq!(settings.levels, Levels { read, write, quorums }, "{line}");
        }
    }

    #[test]
    fn a_refused_choice_changes_nothing() {
        for line in
            ["CONSISTENCY READ", "CONSISTENCY ONE WRITE", "CONSISTENCY TWO", "CONSISTENCY STRICT READ SLOPPY"]
        {
            let mut settings = settings();
            assert!(run(&mut settings, line).is_err(), "{line}");
            assert_eq!(settings.levels, (Consistency::Quorum, Consistency::Quorum).into());
        }
    }

    #[test]
    fn without_arguments_it_reports_the_levels() {
        let reply = run(&mut settings(), "CONSISTENCY").unwrap();
        assert_eq!(
            reply,
            Reply::map([
                ("read", Reply::text("QUORUM")),
                ("write", Reply::text("QUORUM")),
                ("mode", Reply::text("SLOPPY")),
            ])
        );
    }

    #[test]
    fn readwrite_returns_to_the_level_before_readonly() {
        let mut settings = settings();
        readonly(&mut settings);
        readonly(&mut settings);
        assert_eq!(settings.levels.read, Consistency::One);
        assert_eq!(settings.levels.write, Consistency::Quorum);
        readwrite(&mut settings);
        assert_eq!(settings.levels.read, Consistency::Quorum);
    }

    #[test]
    fn a_read_level_chosen_after_readonly_stays_after_readwrite() {
        let mut settings = settings();
        readonly(&mut settings);
        run(&mut settings, "CONSISTENCY READ ALL").unwrap();
        readwrite(&mut settings);
        assert_eq!(settings.levels.read, Consistency::All);
    }
}
