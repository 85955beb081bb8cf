//! What a program said, waiting for something to become true, reading metrics.

use anyhow::{Context as _, bail};
use std::{
    collections::BTreeMap,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How often [`wait_for`] looks.
const POLL: Duration = Duration::from_millis(50);

/// A program that ran to its end.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a program to its end with nothing on its standard input.
    pub fn of(command: &mut Command) -> anyhow::Result<Self> {
        let line = command_line(command);
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self {
            command: line,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The standard output without the spaces around it, of a program that succeeded.
    pub fn ok(self) -> anyhow::Result<String> {
        if !self.status.success() {
            bail!(
                "`{}` failed ({}): {}{}",
                self.command,
                self.status,
                self.stdout,
                self.stderr.trim_end()
            );
        }
        Ok(self.stdout.trim().to_owned())
    }

    /// Both outputs of a program that must fail: its message.
    pub fn message(self) -> anyhow::Result<String> {
        if self.status.success() {
            bail!("`{}` should have failed, but said: {}", self.command, self.stdout);
        }
        Ok(format!("{}{}", self.stdout, self.stderr).trim().to_owned())
    }
}

/// The command as one would type it.
pub(crate) fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// A bound for things that take a second or two, generous enough for a busy machine.
pub fn patiently() -> Duration {
    Duration::from_secs(60)
}

/// Tries until it succeeds; past the bound the error names what was awaited and the last failure.
pub fn wait_for<T>(
    what: &str,
    bound: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > bound => {
                return Err(error.context(format!("not within {bound:?}: {what}")));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// The samples of a metric that carry all these labels, in Prometheus' text format, by series.
pub fn metric_series(
    text: &str,
    name: &str,
    labels: &[(&str, &str)],
) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (metric, given) = series.split_once('{').unwrap_or((series, ""));
        let wanted = |(key, value): &(&str, &str)| given.contains(&format!("{key}=\"{value}\""));
        if metric == name && labels.iter().all(wanted) {
            found.insert(series.to_owned(), value.parse().context("a sample is no number")?);
        }
    }
    Ok(found)
}

/// The sum of [`metric_series`]. None of them is an error: a misspelt name must not count as zero.
pub fn metric_sum(text: &str, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
    let series = metric_series(text, name, labels)?;
    if series.is_empty() {
        bail!("no sample of {name} with {labels:?} in:\n{text}");
    }
    Ok(series.values().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total x\na_total{service=\"web\",backend=\"10.0.1.3\"} 100\n\
                        a_total{service=\"web\",backend=\"10.0.1.4\"} 99\n\
                        a_total{service=\"db\"} 7\nb 3\n";

    #[test]
    fn samples_with_the_label_are_added_up() {
        assert_eq!(metric_sum(TEXT, "a_total", &[("service", "web")]).unwrap(), 199.0);
        assert_eq!(metric_sum(TEXT, "b", &[]).unwrap(), 3.0);
    }

    #[test]
    fn a_metric_that_is_not_there_is_an_error() {
        assert!(metric_sum(TEXT, "a", &[]).is_err());
        assert!(metric_sum(TEXT, "a_total", &[("service", "we")]).is_err());
    }

    #[test]
    fn waiting_ends_with_the_last_failure() {
        let error = wait_for::<()>("rain", Duration::from_millis(1), || bail!("still dry"));
        let text = format!("{:#}", error.unwrap_err());
        assert!(text.contains("rain") && text.contains("still dry"), "{text}");
    }
}
