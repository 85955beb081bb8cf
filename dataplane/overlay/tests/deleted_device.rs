//! By itself in this file, so that the process has one lane, whose processor time can be read.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use shoal_overlay::Engine;
use std::{fs, thread::sleep, time::Duration};
use support::{DEVICE, Net, Node};

/// Processor time of the lane's thread, in hundredths of a second.
fn lane_time() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let stats = tasks.map(|task| fs::read_to_string(task.join("stat")).unwrap());
    let mut times = stats.filter_map(|stat| {
        let (name, rest) = stat.rsplit_once(") ")?;
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |i: usize| words[i].parse::<u64>().unwrap();
        // proc_pid_stat(5): fields 14 and 15, of which three are before the split.
        name.ends_with("(overlay-0").then(|| number(11) + number(12))
    });
    times.next().expect("the lane's thread is there")
}

#[test]
fn an_engine_whose_device_was_deleted_does_not_spin() {
    let net = Net::new(1);
    let node = Node::start(&net, 0);
    node.ip(&format!("link del {DEVICE}"));
    sleep(Duration::from_millis(300));
    let before = lane_time();
    sleep(Duration::from_secs(1));
    assert!(lane_time() - before < 20, "{} of 100", lane_time() - before);
    node.engine.set_peers(vec![]).unwrap();
}
