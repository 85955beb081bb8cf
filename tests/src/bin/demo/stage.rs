//! What the demo prints: each step, its commands as a user would type them, ticks and times.

use shoal_tests::Node;
use std::time::{Duration, Instant};

/// One step.
pub(crate) struct Stage {
    started: Instant,
    checked: Instant,
}

impl Stage {
    /// Prints the step's title; its time runs from here.
    pub(crate) fn start(number: u32, title: &str) -> Self {
        println!("\n{number}. {title}");
        Self { started: Instant::now(), checked: Instant::now() }
    }

    /// Runs the docker client, after printing its command line.
    pub(crate) fn docker(&self, node: &Node, args: &[&str]) -> anyhow::Result<String> {
        self.command(node.name(), &format!("docker {}", args.join(" ")));
        node.docker(args)?.ok()
    }

    /// Prints a command that a user would type.
    pub(crate) fn command(&self, host: &str, command: &str) {
        println!("   {host}$ {command}");
    }

    /// Prints lines a command gave, set off.
    pub(crate) fn show(&self, output: &str) {
        output.lines().for_each(|line| println!("   │ {line}"));
    }

    /// Something was seen to be as it should; with the time since the tick before.
    pub(crate) fn tick(&mut self, what: &str) {
        let now = Instant::now();
        println!("   ✓ {what}  ({})", seconds(now - self.checked));
        self.checked = now;
    }

    /// The step is done.
    pub(crate) fn done(self) {
        println!("   step took {}", seconds(self.started.elapsed()));
    }
}

/// The whole demo's time.
pub(crate) struct Total(Instant);

impl Total {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn print(&self) {
        println!("\n✓ all seven steps, {}", seconds(self.0.elapsed()));
    }
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
