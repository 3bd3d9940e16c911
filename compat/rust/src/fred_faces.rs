//! fred: RESP2, RESP3, and its cluster driver.

use std::collections::HashMap;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::{Config, ReconnectPolicy, Server, ServerConfig};
use fred::types::scan::Scanner;
use fred::types::{Builder, ClusterHash, CustomCommand, Expiration, Key, RespVersion, Value};
use futures_util::{Stream, StreamExt};

use crate::face::{Answer, Expiry, Face, Reply, SetOptions, When};
use crate::job::{Job, split};

const TIMEOUT: Duration = Duration::from_secs(30);
const SCAN_COUNT: u32 = 1000;

/// A connected client; the type parameter of the public names says which kind.
pub struct Fred<const CLUSTER: bool, const RESP3: bool> {
    client: Client,
    entry: String,
}

/// One server, RESP2 (fred's default).
pub type Resp2 = Fred<false, false>;
/// One server, RESP3: fred asks for it with an inline `HELLO 3`.
pub type Resp3 = Fred<false, true>;
/// The cluster driver.
pub type Cluster = Fred<true, false>;

impl<const CLUSTER: bool, const RESP3: bool> Face for Fred<CLUSTER, RESP3> {
    const CLUSTER: bool = CLUSTER;

    async fn open(job: &Job, address: &str, db: u8) -> Result<Self, String> {
        let (host, port) = split(address);
        let server = if CLUSTER {
            ServerConfig::new_clustered(vec![(host, port)])
        } else {
            ServerConfig::new_centralized(host, port)
        };
        let version = if RESP3 { RespVersion::RESP3 } else { RespVersion::RESP2 };
        let database = (!CLUSTER && db > 0).then_some(db);
        let config = Config { server, version, database, ..Config::default() };
        let client = Builder::from_config(config)
            .with_connection_config(|config| config.connection_timeout = TIMEOUT)
            .with_performance_config(|config| config.default_command_timeout = TIMEOUT)
            .set_policy(ReconnectPolicy::new_constant(20, 50))
            .build()
            .map_err(text)?;
        client.init().await.map_err(text)?;
        Ok(Fred { client, entry: job.entry.clone() })
    }

    async fn set(&mut self, key: &[u8], value: &[u8], options: SetOptions) -> Answer {
        let expiry = options.expiry.map(expiration);
        let when = options.when.map(|when| match when {
            When::Nx => fred::types::SetOptions::NX,
            When::Xx => fred::types::SetOptions::XX,
        });
        plain(self.client.set(key, value, expiry, when, options.get).await)
    }

    async fn get(&mut self, key: &[u8]) -> Answer {
        plain(self.client.get(key).await)
    }

    async fn mset(&mut self, pairs: &[(String, String)]) -> Answer {
        let map: HashMap<String, String> = pairs.iter().cloned().collect();
        self.client.mset(map).await.map(|()| Reply::ok()).map_err(text)
    }

    async fn mget(&mut self, keys: &[String]) -> Answer {
        plain(self.client.mget(keys.to_vec()).await)
    }

    async fn del(&mut self, keys: &[String]) -> Answer {
        plain(self.client.del(keys.to_vec()).await)
    }

    async fn exists(&mut self, keys: &[String]) -> Answer {
        plain(self.client.exists(keys.to_vec()).await)
    }

    async fn incr(&mut self, key: &str) -> Answer {
        plain(self.client.incr(key).await)
    }

    async fn call(&mut self, words: &[&[u8]]) -> Answer {
        let (name, arguments) = custom(words);
        plain(self.client.custom(name, arguments).await)
    }

    async fn pipeline(&mut self, commands: Vec<Vec<String>>) -> Result<Vec<Answer>, String> {
        let queue = self.client.pipeline();
        for words in &commands {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let (name, arguments) = custom(&words);
            queue.custom::<Value, _>(name, arguments).await.map_err(text)?;
        }
        Ok(queue.try_all::<Value>().await.into_iter().map(plain).collect())
    }

    async fn scan(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        if CLUSTER {
            collect(self.client.scan_cluster(pattern.to_owned(), Some(SCAN_COUNT), None)).await
        } else {
            collect(self.client.scan(pattern.to_owned(), Some(SCAN_COUNT), None)).await
        }
    }

    async fn own(&mut self, words: &[&str]) -> Answer {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let (name, arguments) = custom(&words);
        if !CLUSTER {
            return plain(self.client.custom(name, arguments).await);
        }
        let (host, port) = split(&self.entry);
        plain(self.client.with_cluster_node(Server::new(host, port)).custom(name, arguments).await)
    }

    async fn close(self) {
        let _ = self.client.quit().await; // the case is over; a connection already gone is closed too
    }
}

/// The keys of every page.
async fn collect<S: Scanner>(pages: impl Stream<Item = Result<S, Error>>) -> Result<Vec<String>, String>
where
    S::Page: IntoIterator<Item = Key>,
{
    let mut pages = std::pin::pin!(pages);
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let mut page = page.map_err(text)?;
        for key in page.take_results().into_iter().flatten() {
            found.push(key.into_string().ok_or("a key that is not UTF-8")?);
        }
        page.next();
    }
    Ok(found)
}

fn custom(words: &[&[u8]]) -> (CustomCommand, Vec<Value>) {
    let name = String::from_utf8_lossy(words[0]).into_owned();
    let arguments = words[1..].iter().map(|word| Value::Bytes(word.to_vec().into())).collect();
    (CustomCommand::new(name, ClusterHash::FirstKey, false), arguments)
}

fn expiration(expiry: Expiry) -> Expiration {
    let signed = |n: u64| i64::try_from(n).expect("times of the workload fit");
    match expiry {
        Expiry::Ex(n) => Expiration::EX(signed(n)),
        Expiry::Px(n) => Expiration::PX(signed(n)),
        Expiry::ExAt(n) => Expiration::EXAT(signed(n)),
        Expiry::PxAt(n) => Expiration::PXAT(signed(n)),
        Expiry::Keep => Expiration::KEEPTTL,
    }
}

fn plain(value: Result<Value, Error>) -> Answer {
    Ok(match value.map_err(text)? {
        Value::Null => Reply::Nil,
        Value::Integer(n) => Reply::Int(n),
        Value::Boolean(yes) => Reply::Int(i64::from(yes)),
        Value::String(text) => Reply::text(text.as_bytes()),
        Value::Bytes(bytes) => Reply::text(bytes),
        Value::Array(values) => {
            Reply::List(values.into_iter().map(|each| plain(Ok(each))).collect::<Result<_, _>>()?)
        }
        other => return Err(format!("an unexpected kind of reply: {other:?}")),
    })
}

fn text(error: Error) -> String {
    error.to_string()
}
