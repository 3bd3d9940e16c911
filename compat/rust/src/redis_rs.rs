//! redis-rs: blocking, async (through its reconnecting `ConnectionManager`), and both cluster drivers.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::cluster_async::ClusterConnection as AsyncClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{AsyncCommands, Client, Cmd, Commands, Connection, ConnectionLike, ExistenceCheck, Pipeline};
use redis::{RedisError, RedisResult, SetExpiry, Value, pipe};

use crate::face::{Answer, Expiry, Face, Reply, SetOptions, When};
use crate::job::{Job, split};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The commands that are written alike for each connection type: the blocking ones have no `.await`.
macro_rules! shared_commands {
    ($($wait:tt)*) => {
        async fn set(&mut self, key: &[u8], value: &[u8], options: SetOptions) -> Answer {
            let reply: RedisResult<Value> = self.connection.set_options(key, value, native(options)) $($wait)*;
            answer(reply)
        }

        async fn get(&mut self, key: &[u8]) -> Answer {
            let reply: RedisResult<Value> = self.connection.get(key) $($wait)*;
            answer(reply)
        }

        async fn mset(&mut self, pairs: &[(String, String)]) -> Answer {
            let reply: RedisResult<Value> = self.connection.mset(pairs) $($wait)*;
            answer(reply)
        }

        async fn mget(&mut self, keys: &[String]) -> Answer {
            let reply: RedisResult<Value> = self.connection.mget(keys) $($wait)*;
            answer(reply)
        }

        async fn del(&mut self, keys: &[String]) -> Answer {
            let reply: RedisResult<i64> = self.connection.del(keys) $($wait)*;
            answer(reply.map(Value::Int))
        }

        async fn exists(&mut self, keys: &[String]) -> Answer {
            let reply: RedisResult<i64> = self.connection.exists(keys) $($wait)*;
            answer(reply.map(Value::Int))
        }

        async fn incr(&mut self, key: &str) -> Answer {
            let reply: RedisResult<i64> = self.connection.incr(key, 1) $($wait)*;
            answer(reply.map(Value::Int))
        }
    };
}

/// The blocking client.
pub struct Blocking {
    client: Client,
    connection: Connection,
}

impl Face for Blocking {
    const CLUSTER: bool = false;

    shared_commands!();

    async fn open(_: &Job, address: &str, db: u8) -> Result<Self, String> {
        let client = Client::open(format!("redis://{address}/{db}")).map_err(text)?;
        let connection = connect(&client)?;
        Ok(Blocking { client, connection })
    }

    async fn call(&mut self, words: &[&[u8]]) -> Answer {
        if !self.connection.is_open() {
            self.connection = connect(&self.client)?; // what a pool does: this connection never comes back
        }
        answer(command(words).query(&mut self.connection))
    }

    async fn pipeline(&mut self, commands: Vec<Vec<String>>) -> Result<Vec<Answer>, String> {
        let replies: Vec<RedisResult<Value>> = queue(&commands).query(&mut self.connection).map_err(text)?;
        Ok(replies.into_iter().map(answer).collect())
    }

    async fn scan(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        let options = redis::ScanOptions::default().with_pattern(pattern).with_count(1000);
        let keys = self.connection.scan_options(options).map_err(text)?;
        keys.collect::<RedisResult<Vec<String>>>().map_err(text)
    }

    async fn own(&mut self, words: &[&str]) -> Answer {
        self.call(&bytes(words)).await
    }
}

fn connect(client: &Client) -> Result<Connection, String> {
    let connection = client.get_connection_with_timeout(TIMEOUT).map_err(text)?;
    connection.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    Ok(connection)
}

/// The async client.
pub struct Async {
    connection: ConnectionManager,
}

impl Face for Async {
    const CLUSTER: bool = false;

    shared_commands!(.await);

    async fn open(_: &Job, address: &str, db: u8) -> Result<Self, String> {
        let client = Client::open(format!("redis://{address}/{db}")).map_err(text)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(10)
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = client.get_connection_manager_with_config(config).await.map_err(text)?;
        Ok(Async { connection })
    }

    async fn call(&mut self, words: &[&[u8]]) -> Answer {
        answer(command(words).query_async(&mut self.connection).await)
    }

    async fn pipeline(&mut self, commands: Vec<Vec<String>>) -> Result<Vec<Answer>, String> {
        let queue = queue(&commands);
        let replies: Vec<RedisResult<Value>> = queue.query_async(&mut self.connection).await.map_err(text)?;
        Ok(replies.into_iter().map(answer).collect())
    }

    async fn scan(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        let options = redis::ScanOptions::default().with_pattern(pattern).with_count(1000);
        let mut keys = self.connection.scan_options::<String>(options).await.map_err(text)?;
        let mut found = Vec::new();
        while let Some(key) = keys.next_item().await {
            found.push(key.map_err(text)?);
        }
        Ok(found)
    }

    async fn own(&mut self, words: &[&str]) -> Answer {
        self.call(&bytes(words)).await
    }
}

/// The blocking cluster driver.
pub struct Cluster {
    nodes: Vec<String>,
    entry: String,
    connection: ClusterConnection,
}

impl Face for Cluster {
    const CLUSTER: bool = true;
    const PIPELINE_TELLS_EACH_ERROR: bool = false;

    shared_commands!();

    async fn open(job: &Job, address: &str, _: u8) -> Result<Self, String> {
        let connection = cluster_client(address)?.get_connection().map_err(text)?;
        connection.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
        Ok(Cluster { nodes: job.nodes.clone(), entry: job.entry.clone(), connection })
    }

    async fn call(&mut self, words: &[&[u8]]) -> Answer {
        answer(command(words).query(&mut self.connection))
    }

    async fn pipeline(&mut self, commands: Vec<Vec<String>>) -> Result<Vec<Answer>, String> {
        let mut queue = cluster_pipe();
        for words in &commands {
            queue.cmd(&words[0]).arg(&words[1..]);
        }
        let replies: Vec<Value> = queue.query(&mut self.connection).map_err(text)?;
        Ok(replies.into_iter().map(plain).collect())
    }

    async fn scan(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for node in self.nodes.clone() {
            let mut cursor = "0".to_owned();
            loop {
                let page = self.connection.route_command(&scan_page(&cursor, pattern), routed(&node));
                cursor = take_page(answer(page)?, &mut found)?;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(found)
    }

    async fn own(&mut self, words: &[&str]) -> Answer {
        answer(self.connection.route_command(&command(&bytes(words)), routed(&self.entry)))
    }
}

/// The async cluster driver.
pub struct ClusterAsync {
    nodes: Vec<String>,
    entry: String,
    connection: AsyncClusterConnection,
}

impl Face for ClusterAsync {
    const CLUSTER: bool = true;
    const PIPELINE_OF_ONE_SLOT: bool = true;

    shared_commands!(.await);

    async fn open(job: &Job, address: &str, _: u8) -> Result<Self, String> {
        let connection = cluster_client(address)?.get_async_connection().await.map_err(text)?;
        Ok(ClusterAsync { nodes: job.nodes.clone(), entry: job.entry.clone(), connection })
    }

    async fn call(&mut self, words: &[&[u8]]) -> Answer {
        answer(command(words).query_async(&mut self.connection).await)
    }

    async fn pipeline(&mut self, commands: Vec<Vec<String>>) -> Result<Vec<Answer>, String> {
        let queue = queue(&commands);
        let replies: Vec<RedisResult<Value>> = queue.query_async(&mut self.connection).await.map_err(text)?;
        Ok(replies.into_iter().map(answer).collect())
    }

    async fn scan(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for node in self.nodes.clone() {
            let mut cursor = "0".to_owned();
            loop {
                let page = self.connection.route_command(scan_page(&cursor, pattern), routed(&node)).await;
                cursor = take_page(answer(page)?, &mut found)?;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(found)
    }

    async fn own(&mut self, words: &[&str]) -> Answer {
        answer(self.connection.route_command(command(&bytes(words)), routed(&self.entry)).await)
    }
}

fn cluster_client(address: &str) -> Result<ClusterClient, String> {
    let builder = ClusterClient::builder([format!("redis://{address}")]);
    builder.connection_timeout(TIMEOUT).response_timeout(TIMEOUT).build().map_err(text)
}

fn routed(address: &str) -> RoutingInfo {
    let (host, port) = split(address);
    RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port })
}

fn scan_page(cursor: &str, pattern: &str) -> Cmd {
    command(&bytes(&["SCAN", cursor, "MATCH", pattern, "COUNT", "1000"]))
}

/// Adds the keys of a SCAN reply to `found` and returns the next cursor.
fn take_page(reply: Reply, found: &mut Vec<String>) -> Result<String, String> {
    let Reply::List(parts) = reply else { return Err(format!("not a reply of SCAN: {reply:?}")) };
    let [Reply::Text(cursor), Reply::List(keys)] = parts.as_slice() else {
        return Err(format!("not a reply of SCAN: {parts:?}"));
    };
    for key in keys {
        let Reply::Text(key) = key else { return Err(format!("not a key: {key:?}")) };
        found.push(String::from_utf8_lossy(key).into_owned());
    }
    Ok(String::from_utf8_lossy(cursor).into_owned())
}

fn command(words: &[&[u8]]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(word);
    }
    command
}

fn queue(commands: &[Vec<String>]) -> Pipeline {
    let mut queue = pipe();
    for words in commands {
        queue.cmd(&words[0]).arg(&words[1..]);
    }
    queue.ignore_errors();
    queue
}

fn bytes<'a>(words: &[&'a str]) -> Vec<&'a [u8]> {
    words.iter().map(|word| word.as_bytes()).collect()
}

fn native(options: SetOptions) -> redis::SetOptions {
    let mut native = redis::SetOptions::default().get(options.get);
    if let Some(when) = options.when {
        native = native.conditional_set(match when {
            When::Nx => ExistenceCheck::NX,
            When::Xx => ExistenceCheck::XX,
        });
    }
    if let Some(expiry) = options.expiry {
        native = native.with_expiration(match expiry {
            Expiry::Ex(n) => SetExpiry::EX(n),
            Expiry::Px(n) => SetExpiry::PX(n),
            Expiry::ExAt(n) => SetExpiry::EXAT(n),
            Expiry::PxAt(n) => SetExpiry::PXAT(n),
            Expiry::Keep => SetExpiry::KEEPTTL,
        });
    }
    native
}

fn answer(reply: RedisResult<Value>) -> Answer {
    reply.map_err(text).and_then(plain)
}

fn plain(value: Value) -> Answer {
    Ok(match value {
        Value::Nil => Reply::Nil,
        Value::Int(n) => Reply::Int(n),
        Value::Boolean(yes) => Reply::Int(i64::from(yes)),
        Value::Okay => Reply::ok(),
        Value::BulkString(bytes) => Reply::Text(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Reply::text(text),
        Value::Array(values) | Value::Set(values) => {
            Reply::List(values.into_iter().map(plain).collect::<Result<_, _>>()?)
        }
        Value::ServerError(error) => return Err(text(error.into())),
        other => return Err(format!("an unexpected kind of reply: {other:?}")),
    })
}

fn text(error: RedisError) -> String {
    error.to_string()
}
