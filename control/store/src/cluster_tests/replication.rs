//! What managers have from each other: entries, snapshots, and calls that are refused.

use super::{Cluster, LONG, fixture::names};
use crate::{RaftCall, StoreConfig, StoreError, tests::put};
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_managers_have_the_same_and_only_the_leader_takes_proposals() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    for i in 0..20 {
        cluster.write(&format!("n{i}")).await;
    }
    cluster.settled(20).await;
    let leader = cluster.leader().await;
    assert_eq!(leader.node_id(), "a");
    leader.barrier().await.unwrap();
    for follower in [cluster.store("b"), cluster.store("c")] {
        let mut seen = follower.leadership();
        timeout(LONG, seen.wait_for(|now| now.leader.is_some())).await.unwrap().unwrap();
        let error = follower.propose(vec![put("x", 0, "")]).await.unwrap_err();
        assert!(matches!(&error, StoreError::NotLeader { leader } if leader == "a"), "{error}");
        let error = follower.barrier().await.unwrap_err();
        assert!(matches!(&error, StoreError::NotLeader { leader } if leader == "a"), "{error}");
        assert_eq!(follower.leader().unwrap().addr, "a:2377");
    }
    let members = leader.members();
    assert_eq!(names(&members), [("a", true), ("b", true), ("c", true)]);
    assert!(members.iter().all(|member| member.reachable));
    assert_eq!(members.iter().filter(|member| member.leader).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_managers_restart_and_have_everything() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    for i in 0..10 {
        cluster.write(&format!("n{i}")).await;
    }
    cluster.settled(10).await;
    for name in ["a", "b", "c"] {
        cluster.stop(name).await;
    }
    for name in ["a", "b", "c"] {
        cluster.start(name).await;
    }
    cluster.write("n10").await;
    cluster.settled(11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_away_too_long_gets_a_snapshot_while_the_others_serve() {
    let few = |config| StoreConfig { snapshot_interval: 20, snapshot_keep: 5, ..config };
    let cluster = Cluster::with(&["a", "b", "c"], few).await;
    cluster.stop("c").await;
    for i in 0..120 {
        cluster.write(&format!("n{i}")).await;
    }
    assert_eq!(cluster.net.carried(RaftCall::Snapshot), 0);
    cluster.start("c").await;
    let meanwhile = async {
        for i in 120..140 {
            cluster.write(&format!("n{i}")).await;
        }
    };
    tokio::join!(meanwhile, async {
        let caught_up = async {
            while cluster.store("c").read(|s| s.nodes.len()) < 120 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, caught_up).await.expect("it catches up");
    });
    let state = cluster.settled(140).await;
    assert!(cluster.net.carried(RaftCall::Snapshot) > 0, "by a snapshot");
    // What was installed is on its disk.
    cluster.stop("c").await;
    cluster.start("c").await;
    assert_eq!(cluster.settled(140).await, state);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_in_another_s_name_or_cannot_be_read_is_refused() {
    use crate::{elector::Ask, wire};
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let store = cluster.store("b");
    let ask = |candidate: &str| {
        let candidate = candidate.to_owned().try_into().unwrap();
        wire::encode(&Ask { candidate, last_log_id: None }).unwrap()
    };
    let answer = store.handle("c", RaftCall::Ask, &ask("c")).await.unwrap();
    assert!(!wire::decode::<bool>(&answer).unwrap(), "there is a leader, and its log is longer");
    let error = store.handle("c", RaftCall::Ask, &ask("a")).await.unwrap_err();
    assert!(error.to_string().contains("it speaks in the name of a"), "{error}");
    for call in RaftCall::ALL {
        assert_eq!(RaftCall::named(call.as_str()), Some(call));
        for bytes in [vec![], vec![9, 9], vec![1], vec![1, 255, 255]] {
            let error = store.handle("a", call, &bytes).await.unwrap_err();
            assert!(matches!(error, StoreError::Call { .. }), "{call}: {error}");
        }
    }
    cluster.write("unharmed").await;
}
