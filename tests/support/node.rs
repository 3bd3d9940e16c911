//! One `gyre server` process.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, eventually, ports};

const LOG_TAIL_LINES: usize = 25;

/// A server with its directory and ports, running or not.
pub(crate) struct Node {
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    pub(crate) peer_port: u16,
    /// The network namespace it runs in, unless this process's own.
    namespace: Option<String>,
    home: PathBuf,
    flags: Vec<String>,
    /// What it finds in its environment.
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// A node on loopback, below `dir`, that is not started yet.
    pub(crate) fn new(dir: &Path, name: &str) -> Node {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ports::free());
        Node::at(address, ports::free(), None, dir.join(name))
    }

    /// A node in the network namespace `namespace`, at its address `host` and the usual ports.
    pub(crate) fn inside(namespace: &str, host: IpAddr, dir: &Path, name: &str) -> Node {
        Node::at(SocketAddr::new(host, 6379), 16379, Some(namespace.to_string()), dir.join(name))
    }

    fn at(address: SocketAddr, peer_port: u16, namespace: Option<String>, home: PathBuf) -> Node {
        let (host, port) = (address.ip(), address.port());
        Node {
            host,
            port,
            peer_port,
            namespace,
            home,
            flags: Vec::new(),
            environment: Vec::new(),
            child: None,
        }
    }

    /// Starts the process (again), with `flags` beside those every node has.
    pub(crate) fn start(&mut self, flags: &[&str]) {
        assert!(self.child.is_none(), "it runs already");
        self.flags = flags.iter().map(ToString::to_string).collect();
        fs::create_dir_all(&self.home).unwrap();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.program();
        command.arg("server").arg("--dir").arg(&self.home);
        command.args(["--port", &self.port.to_string(), "--peer-port", &self.peer_port.to_string()]);
        // Two dozen servers share the machine: few threads, short waits, long time-outs.
        let host = self.host.to_string();
        for (name, value) in [("--workers", "2"), ("--bind", &host), ("--request-timeout-ms", "20000")] {
            if !flags.contains(&name) {
                command.args([name, value]);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(flags).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts it again with the flags it had.
    pub(crate) fn restart(&mut self) {
        let flags = self.flags.clone();
        self.start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Sets a variable of the environment of every process that is started from now on.
    pub(crate) fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_string(), value.to_string()));
    }

    /// Ends it as a crash would, with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Takes away all it has stored; it must not run.
    pub(crate) fn lose_disk(&self) {
        assert!(self.child.is_none(), "it runs");
        fs::remove_dir_all(self.store_dir()).unwrap();
    }

    /// Where its files are.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.home.join("store")
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// Freezes it with SIGSTOP: its connections stay open, and nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Node::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("it runs")), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let status = eventually("the process ends", || child.try_wait().unwrap().ok_or("it runs on"));
        self.child = None;
        status
    }

    /// Whether the process is there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::try_connect(self.address()).unwrap()
    }

    /// A connection as soon as it accepts one.
    pub(crate) fn client_soon(&mut self) -> Client {
        let address = self.address();
        eventually(&format!("{address} answers"), || {
            assert!(self.is_running(), "the server has ended:\n{}", self.log_tail());
            let mut client = Client::try_connect(address).map_err(|error| error.to_string())?;
            client.try_run("PING").map_err(|error| error.to_string())?;
            Ok::<_, String>(client)
        })
    }

    /// Fields of CLUSTER INFO: the state, and how many nodes it knows.
    pub(crate) fn cluster_info(&self) -> Result<(String, usize), String> {
        let ask = || Client::try_connect(self.address())?.try_run("CLUSTER INFO");
        let text = ask().map_err(|error| error.to_string())?.text();
        let field = |name: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_string())
        };
        let known = field("cluster_known_nodes").and_then(|number| number.parse().ok());
        Ok((field("cluster_state").unwrap(), known.unwrap()))
    }

    /// Lines of CLUSTER NODES of members that it sees down.
    pub(crate) fn sees_down(&self) -> usize {
        let nodes = self.client().run("CLUSTER NODES").text();
        nodes.lines().filter(|line| line.contains("fail")).count()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until the log holds `words`.
    pub(crate) fn wait_for_log(&self, words: &str) {
        eventually(&format!("the log says {words:?}"), || {
            let log = self.log();
            if log.contains(words) { Ok(()) } else { Err(log) }
        });
    }

    /// The program, in the node's namespace. `ip netns exec` becomes it: the process id is the server's.
    fn program(&self) -> Command {
        let Some(namespace) = &self.namespace else { return gyre() };
        let program = gyre();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program.get_program());
        for (name, _) in program.get_envs() {
            command.env_remove(name);
        }
        command
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("log")
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the node at {}\n{}", self.address(), self.log_tail());
        }
    }
}

/// The program, without the settings that the shell of this run may have.
pub(crate) fn gyre() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gyre"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GYRE_") {
            command.env_remove(name);
        }
    }
    command
}
