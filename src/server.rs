//! `gyre server`: from the settings to a running node, and back to a clean stop.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gyre_storage::{FsyncPolicy, StorageError, Store, StoreOptions};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::rules::PROTECTED_MODE_TEXT;
use crate::config::{Config, peer_bind_address, protected_mode_denies};
use crate::error::StartError;
use crate::node::Node;
use crate::rejoin;
use crate::worker;
use crate::worker::mailbox::{Letter, mailbox};

/// How often the write-ahead log is synced under `appendfsync everysec`.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How a node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// It is to begin anew, empty ([`crate::rejoin`]): in a fresh process.
    Rejoining,
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`] if it cannot start: the directory, a port, the settings.
pub fn run(config: Config) -> Result<Ended, StartError> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    let clients = listen((config.bind, config.port).into(), "port")?;
    let peers = listen((peer_bind_address(&config)?, config.peer_port).into(), "peer-port")?;
    let store = open_store(&config)?;
    let (mailboxes, receivers): (Vec<_>, Vec<_>) = (0..config.workers).map(|_| mailbox()).unzip();
    let node = Arc::new(Node::new(config, store, mailboxes)?);
    crate::logging::banner(&node);
    crate::http::start(&node)?;
    let mut threads = Vec::new();
    for (index, letters) in receivers.into_iter().enumerate() {
        let node = Arc::clone(&node);
        threads.push(spawn(format!("gyre-worker-{index}"), move || worker::start(index, node, letters))?);
    }
    spawn_acceptors(&node, clients, peers)?;
    let keeper = {
        let (node, stop) = (Arc::clone(&node), Arc::clone(&stop));
        spawn("gyre-sync".into(), move || {
            keep_store(&node, &stop);
            Ok(())
        })?
    };
    if let Some(signal) = signals.forever().next() {
        tracing::info!(signal, "stopping: no new connections, commands under way may end");
    }
    node.stopping.store(true, Ordering::Release);
    for mailbox in &node.mailboxes {
        // A worker that has ended already needs no word.
        let _ = mailbox.send(Letter::Stop);
    }
    join(threads);
    stop.store(true, Ordering::Release);
    keeper.thread().unpark();
    join(vec![keeper]);
    if node.rejoining.load(Ordering::Acquire) {
        return Ok(Ended::Rejoining);
    }
    node.store.sync()?;
    tracing::info!("stopped; everything acknowledged is on disk");
    Ok(Ended::Stopped)
}

fn open_store(config: &Config) -> Result<Store, StartError> {
    let options = StoreOptions {
        fsync: config.appendfsync,
        memtable_bytes: config.memtable_size,
        block_cache_bytes: config.block_cache_size,
        row_cache_bytes: config.row_cache_size,
        hint_bytes_max: config.max_hint_bytes as u64,
        ..StoreOptions::new(config.dir.join(rejoin::STORE))
    };
    std::fs::create_dir_all(&config.dir)
        .map_err(|source| StartError::Directory { dir: config.dir.clone(), source })?;
    let rejoin = rejoin::prepare(&config.dir)?;
    let store = Store::open(&options).map_err(|what| match what {
        StorageError::Damaged { .. } => StartError::Damaged { dir: config.dir.clone(), what },
        what => what.into(),
    })?;
    if let Some(rejoin) = rejoin {
        rejoin.finish(&store, &config.dir)?;
    }
    Ok(store)
}

fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, StartError> {
    let domain = socket2::Domain::for_address(address);
    let open = || -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(511)?;
        Ok(socket.into())
    };
    open().map_err(|source| StartError::Listen { address, setting, source })
}

fn spawn(
    name: String,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<JoinHandle<io::Result<()>>, StartError> {
    Ok(thread::Builder::new().name(name).spawn(body)?)
}

fn join(threads: Vec<JoinHandle<io::Result<()>>>) {
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
            Err(_) => tracing::error!("a worker panicked"),
        }
    }
}

/// Threads that accept clients and peers and deal them out to the workers. They end with the process.
fn spawn_acceptors(node: &Arc<Node>, clients: TcpListener, peers: TcpListener) -> Result<(), StartError> {
    let accepting = Arc::clone(node);
    spawn("gyre-accept".into(), move || accept(&accepting, &clients, admit_client, Letter::Client))?;
    let accepting = Arc::clone(node);
    spawn("gyre-accept-peer".into(), move || accept(&accepting, &peers, |_, _, _| true, Letter::Peer))?;
    Ok(())
}

fn accept(
    node: &Node,
    listener: &TcpListener,
    admit: fn(&Node, &TcpStream, SocketAddr) -> bool,
    letter: fn(TcpStream) -> Letter,
) -> io::Result<()> {
    let mut next = 0;
    loop {
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: wait until some are free rather than spin.
                tracing::warn!(%error, "cannot accept a connection");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if node.stopping.load(Ordering::Acquire) {
            return Ok(());
        }
        if !admit(node, &stream, address) || prepare(node, &stream).is_err() {
            continue;
        }
        if let Some(mailbox) = node.mailboxes.get(next % node.mailboxes.len().max(1)) {
            // A worker that has ended takes no connections; the node is stopping.
            let _ = mailbox.send(letter(stream));
        }
        next += 1;
    }
}

/// Whether a client may come in; one that may not is told why.
fn admit_client(node: &Node, mut stream: &TcpStream, address: SocketAddr) -> bool {
    let config = node.config.load();
    let refusal = if protected_mode_denies(&config, address.ip()) {
        PROTECTED_MODE_TEXT
    } else if node.clients.len() >= config.maxclients {
        "ERR max number of clients reached"
    } else {
        return true;
    };
    node.clients.refused.fetch_add(1, Ordering::Relaxed);
    // Told as far as the socket takes it at once; the client is sent away anyhow.
    let _ = io::Write::write_all(&mut stream, format!("-{refusal}\r\n").as_bytes());
    false
}

fn prepare(node: &Node, stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let keepalive = node.config.load().tcp_keepalive_seconds;
    if keepalive > 0 {
        let probes = socket2::TcpKeepalive::new().with_time(Duration::from_secs(keepalive));
        socket2::SockRef::from(stream).set_tcp_keepalive(&probes)?;
    }
    Ok(())
}

/// Once a second: tends the store and, with `appendfsync everysec`, brings the write-ahead log to the disk.
fn keep_store(node: &Node, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        thread::park_timeout(SYNC_EVERY);
        node.store.tend();
        if node.config.load().appendfsync == FsyncPolicy::EverySecond
            && let Err(error) = node.store.sync()
        {
            tracing::error!(%error, "cannot sync the write-ahead log: this node no longer acknowledges writes");
            node.store_failed();
        }
    }
}
