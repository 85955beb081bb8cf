//! Whether a container is well. Pure: what a check is, when it is made, and what its results mean.
//!
//! ```text
//!            a probe succeeds                    retries probes in a row fail
//! starting ───────────────────▶ healthy ─────────────────────────────────────▶ unhealthy
//!     │                            ◀───────────────────────────────────────────    ▲
//!     │                                         a probe succeeds                   │
//!     └── retries probes in a row fail, begun after the start period ──────────────┘
//! ```
//! Semantics, names and defaults are Docker's (`daemon/health.go`).

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RuntimeError;

/// From the end of a probe to the next, and from the start to the first.
const INTERVAL: Duration = Duration::from_secs(30);
/// Longest time one probe may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Instead of the interval within the start period.
const START_INTERVAL: Duration = Duration::from_secs(5);
/// Failures in a row that make a container unhealthy.
const RETRIES: u32 = 3;
/// Results kept.
const MOST_RESULTS: usize = 5;
/// Bytes kept of a probe's output.
pub(crate) const MOST_OUTPUT: usize = 4096;

/// A health check as a service or an image asks for it. What is absent or zero is inherited: from
/// the image, then Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthSpec {
    /// Nothing to inherit, `NONE`, `CMD` and arguments, or `CMD-SHELL` and a line for the shell.
    pub test: Vec<String>,
    /// From the end of a probe to the next.
    pub interval: Option<Duration>,
    /// Longest time of one probe.
    pub timeout: Option<Duration>,
    /// Time after the start within which failures do not count.
    pub start_period: Option<Duration>,
    /// Instead of the interval within the start period.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// A health check of a container, resolved when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// As asked for, with its first word.
    pub test: Vec<String>,
    /// What is executed.
    pub command: Vec<String>,
    /// From the end of a probe to the next.
    pub interval: Duration,
    /// Longest time of one probe.
    pub timeout: Duration,
    /// Time after the start within which failures do not count.
    pub start_period: Duration,
    /// Instead of the interval within the start period.
    pub start_interval: Duration,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

impl HealthCheck {
    /// Merges specification and image (its configuration as it came) by Docker's rules. `None`:
    /// there is no check.
    pub(crate) fn resolve(
        spec: Option<&HealthSpec>,
        image: &Value,
    ) -> Result<Option<HealthCheck>, RuntimeError> {
        let (own, image, shell) =
            (spec.cloned().unwrap_or_default(), of_image(image), shell(image));
        let test = if own.test.is_empty() { image.test } else { own.test };
        let command = match test.split_first() {
            Some((kind, rest)) if kind == "CMD" => rest.to_vec(),
            Some((kind, rest)) if kind == "CMD-SHELL" => [&shell[..], rest].concat(),
            None => return Ok(None),
            Some((kind, _)) if kind == "NONE" => return Ok(None),
            Some((kind, _)) => {
                let reason = format!("Unknown healthcheck type {kind:?} (expected \"CMD\")");
                return Err(RuntimeError::Invalid { field: "health check", reason });
            }
        };
        if command.first().is_none_or(String::is_empty) || test.len() < 2 {
            let reason = format!("{} names no command", test[0]);
            return Err(RuntimeError::Invalid { field: "health check", reason });
        }
        let time = |own: Option<Duration>, image: Option<Duration>, default: Duration| {
            let set = |d: &Duration| !d.is_zero();
            own.filter(set).or(image.filter(set)).unwrap_or(default)
        };
        let retries = own.retries.filter(|n| *n > 0).or(image.retries.filter(|n| *n > 0));
        Ok(Some(HealthCheck {
            test,
            command,
            interval: time(own.interval, image.interval, INTERVAL),
            timeout: time(own.timeout, image.timeout, TIMEOUT),
            start_period: time(own.start_period, image.start_period, Duration::ZERO),
            start_interval: time(own.start_interval, image.start_interval, START_INTERVAL),
            retries: retries.unwrap_or(RETRIES),
        }))
    }
}

/// Docker's `HEALTHCHECK` of an image; times are in nanoseconds.
fn of_image(image: &Value) -> HealthSpec {
    let health = &image["config"]["Healthcheck"];
    let time = |key: &str| health[key].as_u64().map(Duration::from_nanos);
    HealthSpec {
        test: texts(&health["Test"]),
        interval: time("Interval"),
        timeout: time("Timeout"),
        start_period: time("StartPeriod"),
        start_interval: time("StartInterval"),
        retries: health["Retries"].as_u64().and_then(|n| u32::try_from(n).ok()),
    }
}

fn shell(image: &Value) -> Vec<String> {
    let own = texts(&image["config"]["Shell"]);
    if own.is_empty() { ["/bin/sh", "-c"].map(str::to_owned).to_vec() } else { own }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum HealthStatus {
    /// No probe has succeeded yet, and not enough have failed.
    #[default]
    Starting,
    /// The last probes succeeded, or not enough have failed since.
    Healthy,
    /// Too many have failed in a row.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// When it began.
    pub start: DateTime<Utc>,
    /// When it was over.
    pub end: DateTime<Utc>,
    /// Exit code; 0 is well; −1 when it did not end in time or could not be started.
    pub exit_code: i32,
    /// Its first output, or why there is none.
    pub output: String,
}

/// A container's health: ask [`Health::pause`] when to probe, and [`Health::note`] the result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// How it is.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last results, oldest first.
    pub log: VecDeque<ProbeResult>,
}

impl Health {
    /// Time until the next probe, `age` after the container's start.
    pub(crate) fn pause(&self, check: &HealthCheck, age: Duration) -> Duration {
        match check.start_period.checked_sub(age) {
            // The first one that counts is made as soon as one counts.
            Some(left) if !left.is_zero() && self.status == HealthStatus::Starting => {
                check.start_interval.min(left)
            }
            _ => check.interval,
        }
    }

    /// Takes in the result of a probe that began `age` after the container's start.
    pub(crate) fn note(&mut self, check: &HealthCheck, age: Duration, result: ProbeResult) {
        let well = result.exit_code == 0;
        if self.log.len() == MOST_RESULTS {
            self.log.pop_front();
        }
        self.log.push_back(result);
        if well {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if self.status != HealthStatus::Starting || age >= check.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn check(start_period: u64) -> HealthCheck {
        let spec = HealthSpec {
            test: ["CMD", "true"].map(str::to_owned).to_vec(),
            start_period: Some(seconds(start_period)),
            ..HealthSpec::default()
        };
        HealthCheck::resolve(Some(&spec), &Value::Null).unwrap().unwrap()
    }

    fn result(exit_code: i32) -> ProbeResult {
        let at = DateTime::<Utc>::UNIX_EPOCH;
        ProbeResult { start: at, end: at, exit_code, output: String::new() }
    }

    /// Status and streak after probes given as (age in seconds, exit code).
    fn after(check: &HealthCheck, probes: &[(u64, i32)]) -> (HealthStatus, u32) {
        let mut health = Health::default();
        for (age, code) in probes {
            health.note(check, seconds(*age), result(*code));
        }
        (health.status, health.failing_streak)
    }

    #[test]
    fn every_transition_is_dockers() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let plain = check(0);
        for (probes, expected) in [
            (vec![], (Starting, 0)),
            (vec![(30, 1), (60, 1)], (Starting, 2)),
            (vec![(30, 1), (60, 1), (90, -1)], (Unhealthy, 3)),
            (vec![(30, 0)], (Healthy, 0)),
            (vec![(30, 0), (60, 1), (90, 1)], (Healthy, 2)),
            (vec![(30, 1), (60, 1), (90, 0), (120, 1)], (Healthy, 1)),
            (vec![(30, 0), (60, 1), (90, 1), (120, 137)], (Unhealthy, 3)),
            (vec![(30, 1), (60, 1), (90, 1), (120, 0)], (Healthy, 0)),
        ] {
            assert_eq!(after(&plain, &probes), expected, "{probes:?}");
        }
        let slow = check(60);
        for (probes, expected) in [
            (vec![(5, 1), (10, 1), (59, 1), (59, 1)], (Starting, 0)),
            (vec![(5, 1), (60, 1), (90, 1), (120, 1)], (Unhealthy, 3)),
            // Once it was well, the start is over.
            (vec![(5, 0), (10, 1), (15, 1), (20, 1)], (Unhealthy, 3)),
        ] {
            assert_eq!(after(&slow, &probes), expected, "{probes:?}");
        }
    }

    #[test]
    fn probes_come_at_the_start_interval_until_the_start_is_over() {
        let mut health = Health::default();
        let check = check(12);
        let pauses = |health: &Health| [0, 5, 10, 12].map(|a| health.pause(&check, seconds(a)));
        assert_eq!(pauses(&health), [5, 5, 2, 30].map(seconds));
        health.note(&check, seconds(5), result(0));
        assert_eq!(pauses(&health), [30; 4].map(seconds));
    }

    #[test]
    fn five_results_are_kept() {
        let mut health = Health::default();
        (1..=7).for_each(|code| health.note(&check(0), seconds(1), result(code)));
        let codes: Vec<i32> = health.log.iter().map(|r| r.exit_code).collect();
        assert_eq!(codes, [3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_service_overrides_the_image_and_inherits_the_rest() {
        let image = json!({ "config": {
            "Healthcheck": { "Test": ["CMD-SHELL", "wget -q localhost"], "Interval": 2_000_000_000_u64,
                "Retries": 7 },
            "Shell": ["/bin/ash", "-c"],
        }});
        let of = |spec: Option<HealthSpec>| HealthCheck::resolve(spec.as_ref(), &image).unwrap();
        let plain = of(None).unwrap();
        assert_eq!(plain.command, ["/bin/ash", "-c", "wget -q localhost"]);
        assert_eq!((plain.interval, plain.timeout, plain.retries), (seconds(2), seconds(30), 7));
        let own = of(Some(HealthSpec {
            interval: Some(Duration::ZERO),
            timeout: Some(seconds(1)),
            retries: Some(1),
            ..HealthSpec::default()
        }));
        let own = own.unwrap();
        assert_eq!((own.interval, own.timeout, own.retries), (seconds(2), seconds(1), 1));
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let test = |test: &[&str]| HealthSpec { test: words(test), ..HealthSpec::default() };
        assert_eq!(of(Some(test(&["NONE"]))), None);
        assert_eq!(of(Some(test(&["CMD", "a", "b"]))).unwrap().command, ["a", "b"]);
        assert_eq!(HealthCheck::resolve(None, &json!({ "config": {} })).unwrap(), None);
        for bad in [&["CMD"][..], &["CMD-SHELL"], &["PING", "x"]] {
            HealthCheck::resolve(Some(&test(bad)), &image).unwrap_err();
        }
    }
}
