//! Hosts of a cluster without daemons, until this process ends: to look around in by hand, and for
//! the test that ends it in ways it cannot prepare for.

use shoal_tests::Cluster;
use std::{thread, time::Duration};

fn main() -> anyhow::Result<()> {
    let cluster = Cluster::builder().nodes(2).clients(1).without_daemons().start()?;
    println!("folder {}", cluster.folder().display());
    for host in cluster.nodes().iter().map(|node| &**node).chain([cluster.client(0)]) {
        println!("{} nsenter --target {} --net --mount --uts", host.name(), host.holder());
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
