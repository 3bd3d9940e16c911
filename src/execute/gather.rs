//! One command over many keys: all at once, up to a bound, answers in the order of the keys.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::execute::CommandError;

/// How many operations of one command are under way at once.
const IN_FLIGHT_MAX: usize = 128;

/// Runs `operation` for each of `items` and collects the results in their order.
///
/// After a failure no further operation is begun; those under way may still take effect.
pub async fn gather<I, T, F>(items: I, operation: impl Fn(I::Item) -> F) -> Result<Vec<T>, CommandError>
where
    I: IntoIterator,
    F: Future<Output = Result<T, CommandError>>,
{
    stream::iter(items.into_iter().map(operation)).buffered(IN_FLIGHT_MAX).try_collect().await
}

/// Like [`gather`], for operations that answer a number: their sum.
pub async fn sum<I, F>(items: I, operation: impl Fn(I::Item) -> F) -> Result<i64, CommandError>
where
    I: IntoIterator,
    F: Future<Output = Result<i64, CommandError>>,
{
    Ok(gather(items, operation).await?.into_iter().sum())
}
