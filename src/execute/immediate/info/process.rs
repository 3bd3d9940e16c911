//! What the operating system says about this process: memory and processor time, from Linux's `/proc`. Elsewhere, and
//! where a figure is missing, it is 0.

use std::fs;

/// Clock ticks a second in `/proc/self/stat`: `USER_HZ`, 100 on every architecture of Linux in use.
const TICKS_PER_SECOND: u64 = 100;

/// The process at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Memory in use, in bytes (resident set).
    pub resident_bytes: u64,
    /// The most it ever was.
    pub resident_peak_bytes: u64,
    /// Processor time in user mode, in milliseconds.
    pub user_millis: u64,
    /// Processor time in the kernel, in milliseconds.
    pub system_millis: u64,
    /// Memory of the machine, in bytes.
    pub machine_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
}

impl Process {
    /// This process, now.
    pub fn read() -> Process {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        let (user_millis, system_millis) = processor_millis(&text("/proc/self/stat"));
        Process {
            resident_bytes: kib_field(&status, "VmRSS:"),
            resident_peak_bytes: kib_field(&status, "VmHWM:"),
            user_millis,
            system_millis,
            machine_bytes: kib_field(&text("/proc/meminfo"), "MemTotal:"),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_string(),
        }
    }
}

/// The field `name` of a text of lines `name  number kB`, in bytes.
fn kib_field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

/// User and system milliseconds of `/proc/self/stat` (proc(5): fields 14 and 15). The name in parentheses, field 2,
/// may hold spaces and parentheses.
fn processor_millis(stat: &str) -> (u64, u64) {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace().skip(11);
    let mut millis =
        || fields.next().and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0) * 1000 / TICKS_PER_SECOND;
    (millis(), millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_lines_of_kibibytes() {
        let status = "Name:\tgyre\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib_field(status, "VmRSS:"), 1 << 20);
        assert_eq!(kib_field(status, "VmHWM:"), 2 << 20);
        assert_eq!(kib_field(status, "VmSwap:"), 0);
    }

    #[test]
    fn processor_time_is_found_behind_an_awkward_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 123 45 0 0 20 0 1 0";
        assert_eq!(processor_millis(stat), (1230, 450));
        assert_eq!(processor_millis(""), (0, 0));
    }

    #[test]
    fn this_process_uses_memory() {
        if cfg!(target_os = "linux") {
            let process = Process::read();
            assert!(process.resident_bytes > 0 && process.resident_peak_bytes >= process.resident_bytes);
            assert!(process.machine_bytes > process.resident_bytes);
        }
    }
}
