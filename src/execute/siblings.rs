//! Values written with a context: VC.GET, VC.SET, VC.DEL.
//!
//! A context is what VC.GET gave out with the values, opaque to its client; an empty one has seen nothing.

use gyre_cluster::modify::Modify;
use gyre_cluster::modify::context::{BadContext, CausalContext};
use gyre_protocol::Reply;
use gyre_storage::{KeyRef, Record, UnixMillis, View};

use crate::execute::options;
use crate::execute::value::modify;
use crate::execute::{Answer, Arguments, CommandError, Context};

/// `VC.GET key`: the context, then the values, newest first. The same in both protocols.
pub async fn get(cx: &Context, args: &Arguments) -> Answer {
    let key = args.get(1);
    let record = cx.read(cx.db(), key).await?;
    let token = CausalContext::of(&record).token(cluster(cx), KeyRef::new(cx.db(), key));
    Ok(Reply::Array(vec![Reply::text(token), Reply::Array(values(&record, cx.now()))]))
}

/// `VC.SET key context value [EX s|PX ms|EXAT s|PXAT ms]`.
pub async fn set(cx: &Context, args: &Arguments) -> Answer {
    let context = context(cx, args)?;
    let expiry = options::parse_expiry_only(args.from(4), cx.now(), "vc.set")?;
    modify(cx, args.get(1), Modify::SetSibling { context: &context, value: args.get(3), expiry }).await
}

/// `VC.DEL key context`: how many values it has deleted.
pub async fn delete(cx: &Context, args: &Arguments) -> Answer {
    let context = context(cx, args)?;
    modify(cx, args.get(1), Modify::DeleteSiblings { context: &context }).await
}

fn values(record: &Record, now: UnixMillis) -> Vec<Reply> {
    let reply = |value: View<'_>| match value {
        View::Bytes(bytes) => Reply::bulk(bytes),
        View::Integer(number) => Reply::text(number.to_string()),
    };
    record.siblings(now).into_iter().map(|sibling| reply(sibling.value)).collect()
}

/// The context of argument 2 for the key of argument 1, checked, in its binary form.
fn context(cx: &Context, args: &Arguments) -> Result<Vec<u8>, CommandError> {
    let key = KeyRef::new(cx.db(), args.get(1));
    let context = CausalContext::of_token(args.get(2), cluster(cx), key)?;
    let mut bytes = Vec::new();
    context.encode(&mut bytes);
    Ok(bytes)
}

/// The id of the cluster, to which contexts are bound.
fn cluster(cx: &Context) -> u128 {
    cx.node().topology.load().as_ref().as_ref().map_or(0, |topology| topology.cluster_id)
}

impl From<BadContext> for CommandError {
    fn from(refusal: BadContext) -> Self {
        CommandError::Text(refusal.to_string().into())
    }
}
