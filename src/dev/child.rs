//! One server process of a dev cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{DevError, Place, VARIABLES_OF_ONE_NODE};

/// How much of a log's end is shown.
const TAIL_BYTES: u64 = 2_000;
/// How many of its last lines are shown.
const TAIL_LINES: usize = 10;

/// A running or ended server process. Killed when dropped.
pub(super) struct NodeProcess {
    pub(super) place: Place,
    child: Child,
}

impl NodeProcess {
    /// Starts `program` with `arguments`; what it prints goes to the end of the node's log.
    pub(super) fn start(
        program: &Path,
        place: &Place,
        arguments: &[String],
    ) -> Result<NodeProcess, DevError> {
        let failed = |what: String| move |source: io::Error| DevError::System { what, source };
        fs::create_dir_all(&place.dir).map_err(failed(format!("create {}", place.dir.display())))?;
        let path = place.log();
        let open = || -> io::Result<(File, File)> {
            let log = OpenOptions::new().create(true).append(true).open(&path)?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = open().map_err(failed(format!("open {}", path.display())))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(err);
        VARIABLES_OF_ONE_NODE.iter().for_each(|name| {
            command.env_remove(name);
        });
        // A group of its own: Ctrl-C reaches `gyre dev` alone, which then stops the nodes in order.
        command.process_group(0);
        let child = command.spawn().map_err(failed(format!("start node {}", place.number)))?;
        Ok(NodeProcess { place: place.clone(), child })
    }

    /// How the process has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(status) => status.map(|status| status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Asks the process to stop.
    pub(super) fn terminate(&mut self) {
        // Not after it was waited for: its id may be another's.
        if self.ended().is_none() {
            // Fails only if it ends at this moment.
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Ends the process.
    pub(super) fn kill(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

/// The last lines of a log, indented.
pub(super) fn tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
    last.iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> NodeProcess {
        let place = Place { number: 1, port: 1, peer_port: 2, dir: dir.join("node-1") };
        NodeProcess::start(Path::new("/bin/sh"), &place, &["-c".into(), script.into()]).unwrap()
    }

    fn wait(node: &mut NodeProcess) -> String {
        node.child.wait().unwrap();
        node.ended().unwrap()
    }

    #[test]
    fn what_a_node_prints_is_in_its_log_from_run_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = shell(dir.path(), "echo one");
        assert_eq!(wait(&mut first), "exit status: 0");
        let mut second = shell(dir.path(), "echo two >&2; exit 3");
        assert_eq!(wait(&mut second), "exit status: 3");
        assert_eq!(tail(&second.place.log()), "  one\n  two\n");
    }

    #[test]
    fn a_node_is_asked_to_stop_before_it_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut obedient = shell(dir.path(), "exec sleep 100");
        obedient.terminate();
        assert!(wait(&mut obedient).contains("15"));
        let mut killed = shell(dir.path(), "exec sleep 100");
        assert_eq!(killed.ended(), None);
        killed.kill();
        assert!(killed.ended().unwrap().contains('9'));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { number: 7, port: 1, peer_port: 2, dir: dir.path().into() };
        let Err(error) = NodeProcess::start(Path::new("/nonexistent"), &place, &[]) else {
            panic!("there is no such program")
        };
        assert!(error.to_string().starts_with("cannot start node 7"), "{error}");
    }
}
