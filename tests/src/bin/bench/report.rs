//! Rows of results: ours, the peer's, the ratio, the aim, and whether it holds.

use anyhow::{Context as _, ensure};
use std::{fs, thread};

/// One comparison. Higher is better.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// Medians.
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    /// The least ratio that is good enough.
    pub(crate) aim: f64,
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        self.ours / self.peer
    }

    pub(crate) fn holds(&self) -> bool {
        self.ratio() >= self.aim
    }

    fn verdict(&self) -> &'static str {
        if self.holds() { "holds" } else { "SHORT" }
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
        println!(
            "| {}, {} | {:.2} | {:.2} | {:.3} | {:.2} | {} |",
            row.what,
            row.unit,
            row.ours,
            row.peer,
            row.ratio(),
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
            serde_json::json!({
                "what": row.what, "unit": row.unit, "ours": row.ours, "peer": row.peer,
                "ratio": row.ratio(), "aim": row.aim, "holds": row.holds(),
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

    #[test]
    fn a_ratio_below_the_aim_is_short() {
        let row = Row { what: "x".to_owned(), unit: "1/s", ours: 89.0, peer: 100.0, aim: 0.9 };
        assert_eq!(row.verdict(), "SHORT");
    }
}
