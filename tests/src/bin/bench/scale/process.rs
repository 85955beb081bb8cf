//! What a daemon takes, as the kernel counts it.

use anyhow::Context as _;
use shoal_tests::Cluster;
use std::fs;

/// Ticks of a second in `/proc/PID/stat`: the kernel's `USER_HZ`, 100 on every machine we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Of a daemon's process; the `shoal net` beside it is another.
pub(super) struct Usage {
    /// Processor time since it was started.
    pub(super) cpu_s: f64,
    pub(super) rss_mib: f64,
    /// The most it ever had.
    pub(super) peak_mib: f64,
}

impl Usage {
    pub(super) fn of(cluster: &Cluster, node: usize) -> anyhow::Result<Usage> {
        let pid = cluster.node(node).daemon_pid().context("the daemon does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(Usage {
            cpu_s: ticks(&stat)? as f64 / TICKS_PER_SECOND,
            rss_mib: mib(&status, "VmRSS:")?,
            peak_mib: mib(&status, "VmHWM:")?,
        })
    }
}

/// A line of `/proc/PID/status`, which counts in KiB.
fn mib(status: &str, name: &str) -> anyhow::Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{name} is missing in /proc/PID/status"))? / 1_024.0)
}

/// User and system time of `/proc/PID/stat`: fields 14 and 15. The second, the name, is in brackets
/// and may have spaces.
fn ticks(stat: &str) -> anyhow::Result<u64> {
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<u64>().ok());
    let times = field(14).zip(field(15));
    times.map(|(user, system)| user + system).context("/proc/PID/stat has no times")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_are_understood() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 30 0 0 20 0 9 0 100 1 2";
        assert_eq!(ticks(stat).unwrap(), 280);
        assert_eq!(mib("Name:\tx\nVmHWM:\t    2048 kB\n", "VmHWM:").unwrap(), 2.0);
        assert!(mib("Name:\tx\n", "VmRSS:").is_err());
    }
}
