//! What crosses the wire, recorded by tcpdump on every link of a namespace.

use crate::{Outcome, wait_for};
use anyhow::{Context as _, bail};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// So many looks at a file that does not grow mean that tcpdump has nothing left to write.
const QUIET_POLLS: u32 = 5;

/// A recording that goes on until it is [finished](Capture::finish).
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    stderr: BufReader<std::process::ChildStderr>,
    file: PathBuf,
}

/// A finished recording.
#[derive(Debug)]
pub struct Recording {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Capture {
    /// Starts in the network namespace of a process; when this returns, packets are being recorded.
    pub(crate) fn start(pid: u32, file: &Path) -> anyhow::Result<Self> {
        let mut tcpdump = Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--net", "--", "tcpdump"])
            // Whole packets, 64 MiB of buffer so that none is lost, written as they come.
            .args([
                "-i",
                "any",
                "-n",
                "-s",
                "0",
                "-B",
                "65536",
                "-U",
                "--immediate-mode",
                "-Z",
                "root",
            ])
            .arg("-w")
            .arg(file)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start tcpdump")?;
        let mut stderr = BufReader::new(tcpdump.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            if stderr.read_line(&mut line)? == 0 {
                bail!("tcpdump ended before it listened: {:?}", tcpdump.wait()?);
            }
        }
        Ok(Self { tcpdump, stderr, file: file.to_owned() })
    }

    /// Ends the recording. One that lost packets proves nothing: that is an error.
    pub fn finish(mut self) -> anyhow::Result<Recording> {
        // What the kernel has queued must be in the file: it is, once the file stops growing.
        let (mut size, mut same) = (0, 0);
        wait_for("the capture to be written", Duration::from_secs(10), || {
            let now = fs::metadata(&self.file)?.len();
            same = if now == size { same + 1 } else { 0 };
            size = now;
            if same > QUIET_POLLS { Ok(()) } else { bail!("it still grows") }
        })?;
        let pid = rustix::process::Pid::from_child(&self.tcpdump);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        self.tcpdump.wait()?;
        let mut summary = String::new();
        self.stderr.read_to_string(&mut summary)?;
        if !summary.contains("\n0 packets dropped by kernel")
            && !summary.starts_with("0 packets dropped by kernel")
        {
            bail!("the capture is not complete: {summary}");
        }
        let bytes = fs::read(&self.file)?;
        Ok(Recording { file: self.file.clone(), bytes })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Already gone if it was finished.
        self.tcpdump.kill().ok();
        self.tcpdump.wait().ok();
    }
}

impl Recording {
    /// Whether these bytes are anywhere in it.
    pub fn contains(&self, needle: &str) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    }

    /// The packets that match a filter, one line each, in tcpdump's words.
    pub fn packets(&self, filter: &str) -> anyhow::Result<Vec<String>> {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-n", "-t", "-r"]).arg(&self.file).arg(filter);
        let text = Outcome::of(&mut tcpdump)?.ok()?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}
