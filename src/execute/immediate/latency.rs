//! `LATENCY …`: the spikes that the latency monitor has seen, and latency histograms by command.

use gyre_protocol::{Args, Reply};

use crate::execute::Answer;
use crate::execute::immediate::words::{is, refusal, shown};
use crate::metrics::CommandStats;
use crate::metrics::latency::{LatencyMonitor, Spike};

/// Columns of a graph: the latest spikes.
const GRAPH_COLUMNS: usize = 80;
/// Rows of a graph.
const GRAPH_ROWS: u64 = 4;

/// `LATENCY LATEST`: event, time, latest and worst milliseconds.
pub fn latest(monitor: &LatencyMonitor) -> Reply {
    let event = |(name, spike, worst): (&'static str, Spike, u64)| {
        Reply::Array(vec![Reply::text(name), number(spike.unix_seconds), number(spike.millis), number(worst)])
    };
    Reply::Array(monitor.latest().into_iter().map(event).collect())
}

/// `LATENCY HISTORY event`: time and milliseconds of each spike.
pub fn history(monitor: &LatencyMonitor, args: Args<'_>) -> Reply {
    let spike = |spike: Spike| Reply::Array(vec![number(spike.unix_seconds), number(spike.millis)]);
    Reply::Array(monitor.history(args.arg(2)).into_iter().map(spike).collect())
}

/// `LATENCY RESET [event …]`: how many events were forgotten.
pub fn reset(monitor: &LatencyMonitor, args: Args<'_>) -> Reply {
    let names: Vec<&[u8]> = args.from(2).into_iter().collect();
    Reply::count(monitor.reset(&names))
}

/// `LATENCY DOCTOR`.
pub fn doctor(monitor: &LatencyMonitor, threshold_ms: u64) -> Reply {
    Reply::verbatim(monitor.doctor(threshold_ms))
}

/// `LATENCY GRAPH event`: the latest spikes as columns, the newest to the right.
pub fn graph(monitor: &LatencyMonitor, args: Args<'_>) -> Answer {
    let name = args.arg(2);
    let spikes = monitor.history(name);
    let shown_from = spikes.len().saturating_sub(GRAPH_COLUMNS);
    let millis: Vec<u64> = spikes.iter().skip(shown_from).map(|spike| spike.millis).collect();
    let (Some(high), Some(low)) = (millis.iter().max(), millis.iter().min()) else {
        return Err(refusal(format!("ERR No samples available for event '{}'", shown(name))));
    };
    let heading = format!("{} - high {high} ms, low {low} ms\n{}\n", shown(name), "-".repeat(GRAPH_COLUMNS));
    Ok(Reply::verbatim(heading + &columns(&millis, *high)))
}

/// `LATENCY HISTOGRAM [command …]`: calls, and how many took at most 1, 2, 4, … microseconds.
pub fn histogram(commands: &[CommandStats], args: Args<'_>) -> Reply {
    let names = args.from(2);
    let is_wanted = |command: &CommandStats| {
        let asked = |name: &[u8]| {
            is(name, command.name)
                || command.name.split_once('|').is_some_and(|(container, _)| is(name, container))
        };
        command.calls > 0 && (names.is_empty() || names.iter().any(asked))
    };
    let entry = |command: &CommandStats| {
        let bounds = command.latency.powers_of_two().into_iter();
        let counts = bounds.map(|(micros, count)| (number(micros), number(count))).collect();
        let fields = [("calls", number(command.calls)), ("histogram_usec", Reply::Map(counts))];
        (Reply::text(command.name), Reply::map(fields))
    };
    Reply::Map(commands.iter().filter(|command| is_wanted(command)).map(entry).collect())
}

/// Columns of `#`, as high as their share of `high`, at least one row.
fn columns(millis: &[u64], high: u64) -> String {
    let height = |value: u64| (value * GRAPH_ROWS).div_ceil(high.max(1)).max(1);
    let row = |row: u64| -> String {
        let cells: String =
            millis.iter().map(|&value| if height(value) >= row { '#' } else { ' ' }).collect();
        format!("{}\n", cells.trim_end())
    };
    (1..=GRAPH_ROWS).rev().map(row).collect()
}

fn number(value: u64) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use gyre_protocol::{CommandId, OwnedArgs};

    use super::*;
    use crate::execute::CommandError;
    use crate::metrics::{CommandIndex, Metrics};

    fn monitor() -> LatencyMonitor {
        let monitor = LatencyMonitor::default();
        for (second, millis) in [(1, 10), (2, 40), (3, 1)] {
            monitor.record(1, "command", millis * 1000, second);
        }
        monitor
    }

    fn args(line: &str) -> OwnedArgs {
        line.split_whitespace().collect()
    }

    #[test]
    fn latest_and_history_are_arrays_of_numbers() {
        assert_eq!(
            latest(&monitor()),
            Reply::Array(vec![Reply::Array(vec![Reply::text("command"), number(3), number(1), number(40)])])
        );
        let history = |line: &str| history(&monitor(), args(line).args());
        let Reply::Array(spikes) = history("LATENCY HISTORY command") else { panic!("an array") };
        assert_eq!(spikes.len(), 3);
        assert_eq!(spikes[1], Reply::Array(vec![number(2), number(40)]));
        assert_eq!(history("LATENCY HISTORY fork"), Reply::Array(Vec::new()));
    }

    #[test]
    fn reset_counts_what_it_forgets() {
        let monitor = monitor();
        assert_eq!(reset(&monitor, args("LATENCY RESET fork").args()), Reply::Integer(0));
        assert_eq!(reset(&monitor, args("LATENCY RESET").args()), Reply::Integer(1));
    }

    #[test]
    fn a_histogram_is_of_the_commands_named_or_of_all() {
        let metrics = Metrics::new(1);
        let worker = metrics.worker(0);
        for id in [CommandId::Get, CommandId::ConfigGet, CommandId::Set] {
            worker.record(CommandIndex::of(id.command()), 3);
        }
        let names = |line: &str| {
            let Reply::Map(entries) = histogram(&metrics.commands(), args(line).args()) else {
                panic!("a map")
            };
            entries.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names("LATENCY HISTOGRAM").len(), 3);
        assert_eq!(names("LATENCY HISTOGRAM Get nosuch"), [Reply::text("get")]);
        assert_eq!(names("LATENCY HISTOGRAM config"), [Reply::text("config|get")]);
        let Reply::Map(entries) = histogram(&metrics.commands(), args("LATENCY HISTOGRAM get").args()) else {
            panic!("a map")
        };
        let expected = Reply::map([
            ("calls", Reply::Integer(1)),
            ("histogram_usec", Reply::Map(vec![(Reply::Integer(4), Reply::Integer(1))])),
        ]);
        assert_eq!(entries[0].1, expected);
    }

    #[test]
    fn a_graph_has_a_column_for_each_spike() {
        let Ok(Reply::Verbatim { text, .. }) = graph(&monitor(), args("LATENCY GRAPH command").args()) else {
            panic!("a text")
        };
        let text = String::from_utf8(text).unwrap();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(rows, [" #", " #", " #", "###"]);
        let unknown = graph(&monitor(), args("LATENCY GRAPH fork").args());
        let Err(CommandError::Text(text)) = unknown else { panic!("an error") };
        assert_eq!(text, "ERR No samples available for event 'fork'");
    }
}
