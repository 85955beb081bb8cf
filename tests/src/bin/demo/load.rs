//! Requests without a pause from inside a container, each with the moments it began and ended.

use anyhow::{Context as _, bail};
use shoal_tests::{Cluster, RunningTask};
use std::{
    fs,
    process::{Child, Stdio},
};

/// So many requests are under way at any moment.
pub(crate) const AT_ONCE: usize = 2;

/// Hundredths of a second since boot, which shells can read without starting a program.
type Uptime = u64;

/// /proc/uptime has two decimals: two readings within this may stand for either order.
const ROUNDING: Uptime = 1;

/// Load that goes on until it is stopped.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    from: &'a RunningTask,
    shell: Child,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    began: Uptime,
    ended: Uptime,
    pub(crate) answered: bool,
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut uptime = || words.next()?.replace('.', "").parse().ok();
        let (began, ended) = (uptime()?, uptime()?);
        let answered = match words.next()? {
            "ok" => true,
            "failed" => false,
            _ => return None,
        };
        Some(Self { began, ended, answered })
    }

    /// Whether it was already under way at this moment.
    pub(crate) fn spans(&self, moment: Uptime) -> bool {
        self.began <= moment + ROUNDING && moment <= self.ended + ROUNDING
    }
}

/// The present moment, by the clock of the requests.
pub(crate) fn now() -> anyhow::Result<Uptime> {
    let text = fs::read_to_string("/proc/uptime")?;
    let first = text.split(' ').next().context("/proc/uptime is empty")?;
    first.replace('.', "").parse().context("/proc/uptime starts with no number")
}

impl<'a> Load<'a> {
    pub(crate) fn start(
        cluster: &'a Cluster,
        from: &'a RunningTask,
        url: &str,
    ) -> anyhow::Result<Self> {
        let one = format!(
            "while [ ! -e /tmp/stop ]; do \
             read -r a _ </proc/uptime; \
             if timeout 10 wget -q -O /dev/null {url} 2>/dev/null; then r=ok; else r=failed; fi; \
             read -r b _ </proc/uptime; echo $a $b $r; done"
        );
        let all = vec![format!("( {one} ) &"); AT_ONCE].join(" ");
        let script = format!("rm -f /tmp/stop; {all} wait");
        let mut docker = cluster.node(from.node).docker_command();
        docker.args(["exec", &from.container, "sh", "-c", &script]);
        let shell = docker.stdout(Stdio::piped()).spawn().context("cannot start docker exec")?;
        Ok(Self { cluster, from, shell })
    }

    /// Lets the requests under way end, and gives all of them.
    pub(crate) fn stop(self) -> anyhow::Result<Vec<Request>> {
        self.cluster.exec(self.from, "touch /tmp/stop")?.ok()?;
        let output = self.shell.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let requests: Option<Vec<_>> = text.lines().map(Request::parse).collect();
        match requests {
            Some(requests) if output.status.success() && !requests.is_empty() => Ok(requests),
            _ => bail!("the load did not run ({}): {text}", output.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_under_way_spans_a_moment() {
        let request = Request::parse("100.50 100.70 failed").unwrap();
        assert!(!request.answered);
        assert!(request.spans(10_060));
        assert!(!request.spans(10_040) && !request.spans(10_080));
    }

    #[test]
    fn a_line_that_is_no_request_is_not_skipped() {
        assert_eq!(Request::parse("wget: bad address"), None);
    }
}
