//! LCS: `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN n] [WITHMATCHLEN]`.

use gyre_protocol::Reply;

use crate::execute::gather::gather;
use crate::execute::options::{integer, is};
use crate::execute::subsequence::{Common, is_too_large, longest_common, steps};
use crate::execute::value::read_value;
use crate::execute::{Answer, Arguments, CommandError, Context};

const LENGTH_AND_INDEXES: CommandError =
    CommandError::text("ERR If you want both the length and indexes, please just use IDX.");
const TOO_LARGE: CommandError =
    CommandError::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");

/// From this many steps on (about a tenth of a millisecond) the work leaves the network thread.
const STEPS_INLINE_MAX: u64 = 100_000;

/// What is to be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    length: bool,
    indexes: bool,
    match_bytes_min: usize,
    match_lengths: bool,
}

/// `LCS`.
pub async fn lcs(cx: &Context, args: &Arguments) -> Answer {
    let wanted = parse(args)?;
    let mut values =
        gather([args.get(1), args.get(2)], async |key| Ok(read_value(cx, key).await?.unwrap_or_default()))
            .await?;
    let (second, first) = (values.pop().unwrap_or_default(), values.pop().unwrap_or_default());
    if is_too_large(&first, &second) {
        return Err(TOO_LARGE);
    }
    let common = if steps(&first, &second) <= STEPS_INLINE_MAX {
        longest_common(&first, &second)
    } else {
        let work = tokio::task::spawn_blocking(move || longest_common(&first, &second));
        work.await.map_err(|_| CommandError::text("ERR the server is stopping"))?
    };
    Ok(render(common, wanted))
}

fn parse(args: &Arguments) -> Result<Wanted, CommandError> {
    let mut wanted = Wanted::default();
    let mut options = args.from(3);
    while let Some(option) = options.next() {
        match () {
            () if is(option, "len") => wanted.length = true,
            () if is(option, "idx") => wanted.indexes = true,
            () if is(option, "withmatchlen") => wanted.match_lengths = true,
            () if is(option, "minmatchlen") => {
                let minimum = integer(options.next().ok_or(CommandError::SYNTAX)?)?;
                wanted.match_bytes_min = usize::try_from(minimum).unwrap_or(0);
            }
            () => return Err(CommandError::SYNTAX),
        }
    }
    if wanted.length && wanted.indexes { Err(LENGTH_AND_INDEXES) } else { Ok(wanted) }
}

fn render(common: Common, wanted: Wanted) -> Reply {
    if wanted.length {
        return Reply::count(common.bytes.len());
    }
    if !wanted.indexes {
        return Reply::Bulk(common.bytes);
    }
    let pair = |(from, to): (usize, usize)| Reply::Array(vec![Reply::count(from), Reply::count(to)]);
    let matches = common.matches.iter().filter(|run| run.length() >= wanted.match_bytes_min);
    let rows = matches.map(|run| {
        let mut row = vec![pair(run.first), pair(run.second)];
        row.extend(wanted.match_lengths.then(|| Reply::count(run.length())));
        Reply::Array(row)
    });
    Reply::map([("matches", Reply::Array(rows.collect())), ("len", Reply::count(common.bytes.len()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Result<Wanted, CommandError> {
        parse(&line.split(' ').map(str::as_bytes).collect())
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(wanted("LCS a b"), Ok(Wanted::default()));
        assert_eq!(wanted("LCS a b MINMATCHLEN -1"), Ok(Wanted::default()));
        assert_eq!(wanted("LCS a b LEN IDX"), Err(LENGTH_AND_INDEXES));
        assert_eq!(wanted("LCS a b MINMATCHLEN"), Err(CommandError::SYNTAX));
        assert_eq!(wanted("LCS a b MINMATCHLEN x"), Err(CommandError::NOT_AN_INTEGER));
        assert_eq!(wanted("LCS a b foo"), Err(CommandError::SYNTAX));
    }

    #[test]
    fn runs_are_rendered_from_the_last_with_their_lengths() {
        let common = longest_common(b"ohmytext", b"mynewtext");
        let answer = |line| render(common.clone(), wanted(line).unwrap());
        assert_eq!(answer("LCS a b"), Reply::bulk(&b"mytext"[..]));
        assert_eq!(answer("LCS a b len"), Reply::Integer(6));
        let numbers = |a, b| Reply::Array(vec![Reply::Integer(a), Reply::Integer(b)]);
        let row = Reply::Array(vec![numbers(4, 7), numbers(5, 8), Reply::Integer(4)]);
        let expected = Reply::map([("matches", Reply::Array(vec![row])), ("len", Reply::Integer(6))]);
        assert_eq!(answer("LCS a b idx minmatchlen 4 withmatchlen"), expected);
    }
}
