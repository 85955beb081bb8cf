//! Probes of running containers: one task per container with a health check, which ends with
//! [`watch`](crate::monitor::watch)'s. What is decided is in `health`.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{sleep, timeout};

use crate::error::RuntimeError;
use crate::exec::ExecSession;
use crate::health::{HealthCheck, MOST_OUTPUT, ProbeResult};
use crate::runtime::{Container, Runtime, Shared};
use crate::spec::ExecSpec;

/// How long starting a probe may take; that is not the probe's own time (Docker's value).
const START: Duration = Duration::from_secs(30);
/// How long a killed probe may take to be gone.
const KILL: Duration = Duration::from_secs(10);

/// Probes until it is cancelled.
pub(crate) async fn run(shared: Arc<Shared>, container: Arc<Container>, check: HealthCheck) {
    let runtime = Runtime { shared };
    let began = container.life.borrow().started.as_ref().map(|s| s.started_at);
    let began = began.unwrap_or_else(Utc::now);
    let age = |at: DateTime<Utc>| at.signed_duration_since(began).to_std().unwrap_or_default();
    loop {
        let pause = {
            let health = container.health.borrow();
            health.as_ref().map_or(check.interval, |h| h.pause(&check, age(Utc::now())))
        };
        sleep(pause).await;
        let start = Utc::now();
        let (exit_code, output) = match probe(&runtime, container.id(), &check).await {
            Ok(result) => result,
            // The container has just ended: its watcher ends this.
            Err(RuntimeError::NotRunning { .. }) => continue,
            Err(e) => (-1, e.to_string()),
        };
        let result = ProbeResult { start, end: Utc::now(), exit_code, output };
        container.health.send_modify(|health| {
            let health = health.get_or_insert_default();
            let before = health.status;
            health.note(&check, age(start), result);
            if health.status != before {
                let status = health.status.as_str();
                tracing::info!(container = container.id(), status, "health");
            }
        });
    }
}

/// One probe: exit code and output.
async fn probe(
    runtime: &Runtime,
    id: &str,
    check: &HealthCheck,
) -> Result<(i32, String), RuntimeError> {
    let spec = ExecSpec { cmd: check.command.clone(), ..ExecSpec::default() };
    let Ok(session) = timeout(START, runtime.exec(id, spec)).await else {
        return Ok((-1, format!("timed out starting health check for container {id}")));
    };
    let mut session = session?;
    let mut output = Output::default();
    match timeout(check.timeout, finish(&mut session, &mut output)).await {
        Ok(code) => Ok((code, output.text())),
        Err(_) => {
            // Dying probes must not pile up: the next one comes when this one is gone.
            if session.input.kill().await.is_ok() {
                let _ = timeout(KILL, finish(&mut session, &mut output)).await;
            }
            let took = format!("Health check exceeded timeout ({})", go_duration(check.timeout));
            let said = output.text();
            Ok((-1, if said.is_empty() { took } else { format!("{took}: {said}") }))
        }
    }
}

async fn finish(session: &mut ExecSession, output: &mut Output) -> i32 {
    while let Some((_, bytes)) = session.output.recv().await {
        output.add(&bytes);
    }
    (&mut session.exit).await.unwrap_or(-1)
}

/// The first bytes of an output.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    cut: bool,
}

impl Output {
    fn add(&mut self, bytes: &[u8]) {
        let room = MOST_OUTPUT - self.bytes.len();
        self.cut |= bytes.len() > room;
        self.bytes.extend(&bytes[..bytes.len().min(room)]);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.cut { format!("{text}...") } else { text.into_owned() }
    }
}

/// A time in Go's form, as Docker writes it: `1m30s`, `500ms`.
fn go_duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        let micros = time.as_micros();
        return match micros % 1000 {
            0 => format!("{}ms", micros / 1000),
            _ => format!("{}ms", micros as f64 / 1000.0),
        };
    }
    let (hours, minutes) = (time.as_secs() / 3600, time.as_secs() / 60 % 60);
    let seconds = (time.as_secs() % 60) as f64 + f64::from(time.subsec_millis()) / 1000.0;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_beyond_the_bound_is_cut_and_said_so() {
        let mut output = Output::default();
        output.add(&[b'a'; MOST_OUTPUT - 1]);
        output.add(b"b");
        assert_eq!(output.text().len(), MOST_OUTPUT);
        output.add(b"c");
        assert!(output.text().ends_with("ab..."));
    }

    #[test]
    fn times_are_written_as_go_does() {
        for (ms, text) in [
            (1, "1ms"),
            (500, "500ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (30_000, "30s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
    }
}
