//! The control plane, on real clusters: what people wait for, and what a lost host costs.

mod fleet;
mod loss;
mod peers;
mod services;
mod writes;

use crate::report::Row;

/// A part that can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Services made, scaled and updated
    Services,
    /// Hosts lost
    Loss,
    /// Writes through the API
    Writes,
}

/// All parts, or one.
pub(crate) fn run(only: Option<Part>, quick: bool) -> anyhow::Result<Vec<Row>> {
    let runs = if quick { 1 } else { 5 };
    let wanted = |part| only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wanted(Part::Services) {
        rows.extend(services::rows(runs)?);
    }
    if wanted(Part::Loss) {
        rows.extend(loss::rows(runs)?);
    }
    if wanted(Part::Writes) {
        rows.extend(writes::rows(runs, quick)?);
    }
    Ok(rows)
}
