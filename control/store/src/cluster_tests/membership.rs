//! Managers that are taken in, let go, leave, or go on alone.

use super::{Cluster, LONG, addr, fixture::names};
use crate::{RaftCall, Store, StoreConfig, StoreError, tests::put};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_are_taken_in_moved_and_let_go() {
    let cluster = Cluster::of(&["a"]).await;
    cluster.write("first").await;
    for name in ["b", "c", "d", "e"] {
        cluster.join(name).await;
        cluster.leader().await.add_member(name, &addr(name)).await.unwrap();
    }
    cluster.settled(1).await;
    let leader = cluster.leader().await;
    assert_eq!(leader.members().len(), 5);
    leader.add_member("e", &addr("e")).await.expect("once more: nothing to do");

    // Let go while it runs: it hears nothing any more and disturbs nobody.
    leader.remove_member("e").await.unwrap();
    leader.remove_member("e").await.expect("once more: nothing to do");
    let term = leader.leadership().borrow().term;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(leader.leadership().borrow().term, term);
    assert_eq!(names(&leader.members()).len(), 4);

    // Elsewhere.
    let d = cluster.net.stores.lock().unwrap().remove(&addr("d")).unwrap();
    cluster.net.stores.lock().unwrap().insert("d-new:2377".into(), d);
    leader.update_addr("d", "d-new:2377").await.unwrap();
    let error = leader.update_addr("nobody", "x:1").await.unwrap_err();
    assert!(error.to_string().contains("can't find manager nobody in raft memberlist"), "{error}");
    cluster.stop("e").await;
    cluster.write("second").await;
    cluster.settled(2).await;

    let error = Store::open(cluster.store_config("e"), cluster.end("e")).await.err();
    // It may not have received the entry that removed it; if it has, that is said.
    assert!(error.is_none_or(|e| matches!(e, StoreError::Removed { .. })));
    let follower = cluster.store("b");
    for result in [follower.add_member("x", "x:1").await, follower.remove_member("a").await] {
        assert!(matches!(result, Err(StoreError::NotLeader { .. })), "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_ended_before_it_heard_of_any_members_can_still_join() {
    use crate::{types::Types, wire};
    use openraft::raft::AppendEntriesRequest;
    let cluster = Cluster::of(&["a"]).await;
    cluster.join("b").await;
    // A leader's first word, before the log.
    let vote = cluster.store("a").raft().metrics().borrow().vote;
    let (prev_log_id, entries, leader_commit) = (None, Vec::new(), None);
    let word = AppendEntriesRequest::<Types> { vote, prev_log_id, entries, leader_commit };
    let word = wire::encode(&word).unwrap();
    cluster.store("b").handle("a", RaftCall::Append, &word).await.unwrap();
    cluster.stop("b").await;
    let opened = Store::open(cluster.store_config("b"), cluster.end("b")).await;
    assert!(matches!(opened.err(), Some(StoreError::Missing { .. })), "it is no manager yet");
    cluster.join("b").await;
    cluster.store("a").add_member("b", &addr("b")).await.unwrap();
    cluster.write("both").await;
    cluster.settled(1).await;
    cluster.stop("b").await;
    let again = Store::join(cluster.store_config("b"), cluster.end("b")).await;
    assert!(matches!(again.err(), Some(StoreError::Exists { .. })), "it is one now");
}

/// Asks for a change of the managers until the leader goes by it, then waits no longer. Whether it was still
/// not answered then; nothing if it was answered without.
async fn until_members<F: Future<Output = Result<(), StoreError>> + Send + 'static>(
    store: &Store,
    count: usize,
    ask: impl FnOnce(Store) -> F,
) -> Option<bool> {
    let asking = tokio::spawn(ask(store.clone()));
    let there = async {
        loop {
            // In this order: what is answered now was so before the members are looked at.
            let answered = asking.is_finished();
            if store.members().len() == count {
                return Some(!answered);
            }
            if answered {
                return None;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let waits = timeout(LONG, there).await.expect("the leader goes by it, or says why not");
    asking.abort();
    waits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_is_said_to_be_let_go_only_when_that_holds() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    // One that is still being taken in goes in one step.
    let first = cluster.store("a");
    let joining = until_members(&first, 4, |s| async move { s.add_member("d", &addr("d")).await });
    assert_eq!(joining.await, Some(true), "it does not run, so it is not taken in");
    // The change is in the leader's log, and nobody waits for it to be committed. A leader that finds out that it
    // is alone before it is asked refuses; then it is the next one's turn.
    let mut turns = 0..10;
    let old = loop {
        let turn = turns.next().expect("a leader is asked in time");
        // A change of the managers that is not committed yet is in the way of the next one.
        cluster.write(&format!("before {turn}")).await;
        let old = cluster.leader().await;
        let name = old.node_id();
        let others: Vec<_> = ["a", "b", "c"].into_iter().filter(|other| *other != name).collect();
        cluster.net.cut_off(&name, &others);
        let leaving = until_members(&old, 3, |s| async move { s.remove_member("d").await });
        if let Some(waits) = leaving.await {
            assert!(waits, "nobody has confirmed it");
            break old;
        }
        cluster.net.heal();
    };
    // Asked again, it is not said to be done.
    for result in [old.remove_member("d").await, old.remove_member("d").await] {
        assert!(
            matches!(result, Err(StoreError::NoLeader | StoreError::NotLeader { .. })),
            "{result:?}"
        );
    }
    cluster.write("meanwhile").await;
    cluster.net.heal();
    let written = turns.start + 1;
    cluster.settled(written).await;
    assert_eq!(cluster.leader().await.members().len(), 4, "it has not happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_go_whom_the_majority_needs() {
    let cluster = Cluster::of(&["a"]).await;
    let only = cluster.store("a");
    let error = only.remove_member("a").await.unwrap_err();
    assert_eq!(error.to_string(), "attempting to demote the last manager of the swarm");

    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.store("a");
    cluster.stop("c").await;
    let unreachable = async {
        while leader.members().iter().all(|member| member.reachable) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, unreachable).await.expect("it is noticed");
    for check in [leader.check_removal("b"), leader.remove_member("b").await] {
        let text = check.unwrap_err().to_string();
        assert!(text.contains("would result in a loss of quorum"), "{text}");
        assert!(text.contains("1 of the 2 managers"), "{text}");
    }
    assert_eq!(leader.members().len(), 3);
    // The one that is away may go: two of two are left.
    leader.remove_member("c").await.unwrap();
    cluster.write("x").await;
    leader.remove_member("b").await.expect("one of one is left");
    assert_eq!(leader.members().len(), 1);
    cluster.stop("b").await;
    cluster.write("y").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_hands_over_first() {
    for names in [["a", "b", "c"].as_slice(), &["a", "b"]] {
        let cluster = Cluster::of(names).await;
        cluster.write("x").await;
        let old = cluster.store("a");
        let at = Instant::now();
        let new = old.step_down().await.unwrap();
        println!("handed over to {new} of {names:?} in {:?}", at.elapsed());
        assert!(!old.is_leader());
        let leader = cluster.leader().await;
        assert_eq!(leader.node_id(), new);
        leader.remove_member("a").await.unwrap();
        cluster.stop("a").await;
        cluster.write("y").await;
        cluster.settled(2).await;
    }
    let alone = Cluster::of(&["a"]).await;
    let error = alone.store("a").step_down().await.unwrap_err();
    assert!(matches!(error, StoreError::NoSuccessor), "{error}");
    alone.write("it leads on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_manager_makes_a_new_cluster_of_what_it_has() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    for i in 0..5 {
        cluster.write(&format!("n{i}")).await;
    }
    cluster.settled(5).await;
    for name in ["a", "b", "c"] {
        cluster.stop(name).await;
    }
    let config = cluster.store_config("b");
    let store =
        Store::force_new_cluster(config.clone(), "b-new:1", cluster.end("b")).await.unwrap();
    assert!(store.is_leader());
    assert_eq!(store.read(|state| state.nodes.len()), 5);
    let members = store.members();
    assert_eq!(names(&members), [("b", true)]);
    assert_eq!(members[0].addr, "b-new:1");
    store.propose(vec![put("n5", 0, "")]).await.unwrap();
    store.shutdown().await;
    // It stays so, and others can be taken in.
    let store = Store::open(config, cluster.end("b")).await.unwrap();
    assert_eq!(names(&store.members()), [("b", true)]);
    cluster.net.stores.lock().unwrap().insert("b-new:1".into(), store.clone());
    cluster.join("d").await;
    store.add_member("d", &addr("d")).await.unwrap();
    cluster.settled(6).await;

    let none = StoreConfig::new(cluster.folder("nobody"), "nobody");
    let error = Store::force_new_cluster(none, "x:1", cluster.end("nobody")).await.err().unwrap();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
}
