//! Three nodes, one of them the manager: from a request to the API until what it asks for runs.

use super::fleet::{PORT, cluster, post, remove, running, spec, until, update};
use crate::report::{Aim, Row, median};
use anyhow::ensure;
use shoal_tests::Cluster;
use std::time::Instant;

const CREATE_AIM_S: f64 = 1.0;
const SCALE_AIM_S: f64 = 2.5;
const UPDATE_AIM_S: f64 = 5.0;

pub(super) fn rows(runs: usize) -> anyhow::Result<Vec<Row>> {
    let cluster = cluster(1, 2)?;
    let (mut created, mut scaled, mut updated) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        created.push(create(&cluster)?);
        updated.push(change(&cluster, 10, 2)?);
        scaled.push(change(&cluster, 50, 2)?);
        remove(&cluster, NAME)?;
    }
    let left = cluster.remove();
    ensure!(left.0.is_empty(), "not removed: {}", left.0.join(", "));
    let row = |what: &str, taken: Vec<f64>, aim| -> anyhow::Result<Row> {
        let (what, ours) = (format!("{what}, overlay, 3 nodes"), median(taken)?);
        Ok(Row { what, unit: "s", ours, aim: Aim::AtMost(aim) })
    };
    Ok(vec![
        row("service of 10 created → all running and answering", created, CREATE_AIM_S)?,
        row("scaled 10 → 50 → all running", scaled, SCALE_AIM_S)?,
        row("10 updated one at a time, stop-first → all running", updated, UPDATE_AIM_S)?,
    ])
}

const NAME: &str = "web";

/// Until ten run and the published port answers on a node.
fn create(cluster: &Cluster) -> anyhow::Result<f64> {
    let url = format!("http://{}:{PORT}/", cluster.node(1).addr());
    let start = Instant::now();
    post(cluster, 0, "/services/create", &spec(NAME, 10, 1))?;
    until("10 running tasks that answer", start, || {
        let count = running(cluster, 0, NAME)?.len();
        ensure!(count == 10, "{count} run");
        let answer = cluster.client(0).http_get(&url)?;
        ensure!(answer.status == 200, "{url} answers {}", answer.status);
        Ok(())
    })
}

/// Until so many run, all of this version.
fn change(cluster: &Cluster, replicas: u64, version: u64) -> anyhow::Result<f64> {
    let wanted = format!("VERSION={version}");
    let start = Instant::now();
    update(cluster, &spec(NAME, replicas, version))?;
    until("the tasks as they shall be", start, || {
        let tasks = running(cluster, 0, NAME)?;
        let count = tasks.iter().filter(|task| task.version == wanted).count();
        ensure!(count as u64 == replicas && tasks.len() == count, "{count} of {}", tasks.len());
        Ok(())
    })
}
