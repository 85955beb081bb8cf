//! Rows of results: ours, the peer's and the ratio where there is a peer, the aim, and whether it holds.

use anyhow::{Context as _, ensure};
use std::{fmt, fs, thread};

/// One result.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// Median.
    pub(crate) ours: f64,
    pub(crate) aim: Aim,
}

/// What is good enough.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    /// Ours is compared with a peer's median; higher is better.
    Ratio {
        peer: f64,
        /// The least ratio.
        least: f64,
    },
    /// Ours, in the row's unit.
    AtLeast(f64),
    /// Ours, in the row's unit.
    AtMost(f64),
}

impl Row {
    fn peer(&self) -> Option<f64> {
        match self.aim {
            Aim::Ratio { peer, .. } => Some(peer),
            Aim::AtLeast(_) | Aim::AtMost(_) => None,
        }
    }

    pub(crate) fn ratio(&self) -> Option<f64> {
        self.peer().map(|peer| self.ours / peer)
    }

    pub(crate) fn holds(&self) -> bool {
        match self.aim {
            Aim::Ratio { peer, least } => self.ours / peer >= least,
            Aim::AtLeast(least) => self.ours >= least,
            Aim::AtMost(most) => self.ours <= most,
        }
    }

    fn verdict(&self) -> &'static str {
        if self.holds() { "holds" } else { "SHORT" }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aim::Ratio { least, .. } => write!(f, "{least:.2}"),
            Aim::AtLeast(least) => write!(f, "≥ {least}"),
            Aim::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

/// The middle one of an odd number of runs.
pub(crate) fn median(mut runs: Vec<f64>) -> anyhow::Result<f64> {
    ensure!(!runs.is_empty() && runs.iter().all(|run| run.is_finite()), "odd results: {runs:?}");
    runs.sort_by(f64::total_cmp);
    Ok(runs[runs.len() / 2])
}

pub(crate) fn print(rows: &[Row]) -> anyhow::Result<()> {
    println!("{}", machine()?);
    println!("| what | ours | peer | ratio | aim | |\n|---|---|---|---|---|---|");
    for row in rows {
        let or_dash = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        println!(
            "| {}, {} | {:.2} | {} | {} | {} | {} |",
            row.what,
            row.unit,
            row.ours,
            or_dash(row.peer(), 2),
            or_dash(row.ratio(), 3),
            row.aim,
            row.verdict()
        );
    }
    Ok(())
}

pub(crate) fn json(rows: &[Row]) -> anyhow::Result<String> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (kind, aim) = match row.aim {
                Aim::Ratio { least, .. } => ("least ratio", least),
                Aim::AtLeast(least) => ("at least", least),
                Aim::AtMost(most) => ("at most", most),
            };
            serde_json::json!({
                "what": row.what, "unit": row.unit, "ours": row.ours, "peer": row.peer(),
                "ratio": row.ratio(), "aim": aim, "aim_is": kind, "holds": row.holds(),
            })
        })
        .collect();
    let report = serde_json::json!({ "machine": machine()?, "rows": rows });
    Ok(serde_json::to_string_pretty(&report)?)
}

/// Cores and load: what a reader needs to judge the figures.
fn machine() -> anyhow::Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().context("/proc/loadavg is empty")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = thread::available_parallelism()?;
    Ok(format!("{cores} cores, load {load}, Linux {}", kernel.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![3.0, 9.0, 1.0]).unwrap(), 3.0);
        assert!(median(vec![]).is_err());
    }

    fn verdict(ours: f64, aim: Aim) -> &'static str {
        Row { what: "x".to_owned(), unit: "1/s", ours, aim }.verdict()
    }

    #[test]
    fn what_misses_its_aim_is_short() {
        assert_eq!(verdict(89.0, Aim::Ratio { peer: 100.0, least: 0.9 }), "SHORT");
        assert_eq!(verdict(90.0, Aim::Ratio { peer: 100.0, least: 0.9 }), "holds");
        assert_eq!(verdict(99.0, Aim::AtLeast(100.0)), "SHORT");
        assert_eq!(verdict(100.0, Aim::AtLeast(100.0)), "holds");
        assert_eq!(verdict(1.51, Aim::AtMost(1.5)), "SHORT");
        assert_eq!(verdict(1.5, Aim::AtMost(1.5)), "holds");
    }
}
