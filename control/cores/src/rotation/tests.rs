use super::*;
use crate::testing::World;
use shoal_model::{Change, NodeTls, ObjectKind, RootRotation};

/// A cluster whose root is `a`, with or without its key, on its way to `next` with or without its.
fn cluster(key: bool, next: Option<(&str, bool)>) -> Cluster {
    let mut cluster = World::new().state.cluster.unwrap();
    let key_of = |has: bool| if has { "key".to_owned() } else { String::new() };
    cluster.root_certificate = "a".to_owned();
    cluster.root_key = key_of(key);
    cluster.root_rotation = next.map(|(root, key)| rotation(root, &key_of(key)));
    cluster.spec.ca_config.get_or_insert_default().force_rotate = Some(3);
    cluster
}

fn rotation(root: &str, key: &str) -> RootRotation {
    RootRotation {
        certificate: root.to_owned(),
        digest: format!("digest-{root}"),
        key: key.to_owned(),
        cross_signed: format!("{root}-by-a"),
    }
}

#[test]
fn every_wish_in_every_state_is_decided() {
    use CrossSigner::{External, Key};
    use Needed::{Current, Desired, Next};
    use RootChange::{Adopt, Begin, Generate, Keep, Rekey};
    let wish = |certificate, key, force| RootWish { certificate, key, force };
    let plan = |change, needed: &[Needed], signer| {
        Ok(RootPlan { change, needed: needed.to_vec(), signer })
    };
    let [own, external] = [cluster(true, None), cluster(false, None)];
    let [to_own, to_external] = [true, false].map(|key| cluster(true, Some(("b", key))));
    let from_external = cluster(false, Some(("b", true)));
    let (given, both) = (Err(RootRefusal::KeyAlone), Err(RootRefusal::BothExternal));
    let table = [
        // Nothing about the root.
        (&own, wish(None, false, 3), plan(Keep, &[], None)),
        (&external, wish(None, false, 3), plan(Keep, &[Current], None)),
        (&to_own, wish(None, false, 3), plan(Keep, &[], None)),
        (&to_external, wish(None, false, 3), plan(Keep, &[Next], None)),
        (&from_external, wish(None, false, 3), plan(Keep, &[Current], None)),
        // A new one, whatever there is; also with a smaller number.
        (&own, wish(None, false, 4), plan(Generate, &[], Some(Key))),
        (&own, wish(None, false, 0), plan(Generate, &[], Some(Key))),
        (&to_own, wish(None, false, 4), plan(Generate, &[], Some(Key))),
        (&to_external, wish(None, false, 4), plan(Generate, &[], Some(Key))),
        (&external, wish(None, false, 4), plan(Generate, &[Current], Some(External))),
        // One that is given, with its key or with an external CA.
        (&own, wish(Some("c"), true, 3), plan(Begin, &[], Some(Key))),
        (&own, wish(Some("c"), false, 3), plan(Begin, &[Desired], Some(Key))),
        (&to_own, wish(Some("c"), true, 3), plan(Begin, &[], Some(Key))),
        (&external, wish(Some("c"), true, 3), plan(Begin, &[Current], Some(External))),
        (&external, wish(Some("c"), false, 3), both.clone()),
        (&from_external, wish(Some("c"), false, 3), both),
        // The present one: a key is taken over, or given away; a rotation is given up.
        (&own, wish(Some("a"), true, 3), plan(Adopt, &[], None)),
        (&own, wish(Some("a"), false, 3), plan(Adopt, &[Desired], None)),
        (&external, wish(Some("a"), true, 3), plan(Adopt, &[], None)),
        (&external, wish(Some("a"), false, 3), plan(Adopt, &[Current, Desired], None)),
        (&to_own, wish(Some("a"), true, 3), plan(Adopt, &[], None)),
        // The one under way.
        (&to_own, wish(Some("b"), true, 3), plan(Rekey, &[], None)),
        (&to_own, wish(Some("b"), false, 3), plan(Rekey, &[Desired], None)),
        (&to_external, wish(Some("b"), true, 3), plan(Rekey, &[], None)),
        // A key and nothing it belongs to.
        (&own, wish(None, true, 3), given.clone()),
        (&to_own, wish(None, true, 4), given),
    ];
    for (index, (present, wish, expected)) in table.into_iter().enumerate() {
        assert_eq!(plan_root(present, wish), expected, "row {index}: {wish:?}");
    }
}

/// A cluster of `count` ready nodes that rotates towards `b`.
fn rotating(count: usize) -> World {
    let mut world = World::new();
    for index in 0..count {
        world.node(&format!("n{index:03}"));
    }
    world.set_cluster(|c| c.root_rotation = Some(rotation("b", "key")));
    world
}

/// The nodes renew, and tell.
fn renew(world: &mut World, nodes: &[String], root: &str) {
    for id in nodes {
        let tls = NodeTls { root: Some(format!("digest-{root}")), trust: Vec::new() };
        world.set_node(id, |node| node.tls = Some(tls.clone()));
    }
}

#[test]
fn without_a_rotation_nothing_is_done() {
    let mut world = World::new();
    world.node("n1");
    assert_eq!(Renewals::default().step(&world.state, world.now), RenewalStep::default());
    assert!(!all_renewed(&world.state));
}

#[test]
fn nodes_renew_batch_after_batch_until_all_have() {
    let mut world = rotating(70);
    let mut renewals = Renewals::default();
    let mut batches = Vec::new();
    loop {
        let step = renewals.step(&world.state, world.now);
        if step.finish {
            break;
        }
        assert_eq!(step.due, Some(world.now.after(RENEWAL_PATIENCE)));
        assert!(renewals.step(&world.state, world.now).tell.is_empty(), "told once");
        renew(&mut world, &step.tell, "b");
        batches.push(step.tell.len());
    }
    assert_eq!(batches, [MOST_RENEWING, MOST_RENEWING, 10]);
}

#[test]
fn a_node_that_does_not_renew_is_told_again_and_holds_nobody_up() {
    let mut world = rotating(40);
    let mut renewals = Renewals::default();
    let first = renewals.step(&world.state, world.now).tell;
    world.pass(2_999);
    assert!(renewals.step(&world.state, world.now).tell.is_empty());
    world.pass(1);
    let second = renewals.step(&world.state, world.now).tell;
    assert_eq!(second.len(), MOST_RENEWING);
    let told_before = second.iter().filter(|id| first.contains(id)).count();
    assert_eq!(told_before, MOST_RENEWING - 10, "those who never were come first");
}

#[test]
fn a_node_that_is_away_is_waited_for_and_one_that_is_removed_is_not() {
    let mut world = rotating(3);
    world.set_node("n002", |node| node.status.state = NodeState::Down);
    let mut renewals = Renewals::default();
    let told = renewals.step(&world.state, world.now).tell;
    assert_eq!(told, ["n000", "n001"]);
    renew(&mut world, &told, "b");
    assert_eq!(renewals.step(&world.state, world.now), RenewalStep::default(), "unfinished");
    let mut back = rotating(3);
    renew(&mut back, &told, "b");
    assert_eq!(renewals.step(&back.state, back.now).tell, ["n002"], "it came back");
    world.apply(vec![Change::Delete(ObjectKind::Node, "n002".to_owned())]);
    assert!(renewals.step(&world.state, world.now).finish);
}

#[test]
fn a_rotation_towards_another_root_begins_anew() {
    let mut world = rotating(2);
    let mut renewals = Renewals::default();
    let all = renewals.step(&world.state, world.now).tell;
    renew(&mut world, &all[..1], "b");
    world.set_cluster(|c| c.root_rotation = Some(rotation("c", "key")));
    assert_eq!(renewals.step(&world.state, world.now).tell, all, "also who had renewed");
    renew(&mut world, &all, "b");
    assert!(!renewals.step(&world.state, world.now).finish, "they are of the root before");
    renew(&mut world, &all, "c");
    assert!(renewals.step(&world.state, world.now).finish);
}

#[test]
fn the_next_leader_goes_on_with_what_is_left() {
    let mut world = rotating(3);
    let told = Renewals::default().step(&world.state, world.now).tell;
    renew(&mut world, &told[..2], "b");
    assert_eq!(Renewals::default().step(&world.state, world.now).tell, told[2..]);
}

#[test]
fn a_finished_rotation_leaves_the_next_root_with_its_key_and_new_tokens() {
    let tokens = || JoinTokens { worker: "w".to_owned(), manager: "m".to_owned() };
    let present = cluster(true, Some(("b", true)));
    let after = finished(&present, tokens()).unwrap();
    assert_eq!((&*after.root_certificate, &*after.root_key), ("b", "key"));
    assert!(after.root_rotation.is_none() && after.join_tokens == tokens());
    let after = finished(&cluster(true, Some(("b", false))), tokens()).unwrap();
    assert_eq!(after.root_key, "", "an external CA has it");
    assert!(finished(&after, tokens()).is_none());
}

#[test]
fn a_certificate_is_renewed_between_half_and_four_fifths_of_what_was_left_when_it_was_signed() {
    let (signed, minute) = (Timestamp(1_795_000_000_000_000_000), Duration::from_secs(60));
    let backdate = 60 * minute;
    // Names whose numbers give the first, the last and another point; how long it is valid, in minutes.
    for (node, percent) in [("\u{0}", 50), ("\u{1e}", 80), ("a", 50 + 97 % 31), ("\u{1f}", 50)] {
        for lifetime in [60, 120, 90 * 24 * 60] {
            let begin = Timestamp(signed.0 - i64::try_from(backdate.as_nanos()).unwrap());
            let end = signed.after(minute * lifetime);
            let at = renewal_at(node, [begin, end]).since(signed);
            assert_eq!(at, minute * lifetime * percent / 100, "{node:?} {lifetime}");
        }
    }
    // Signed elsewhere, without the hour before: still before it ends.
    let at = renewal_at("\u{1e}", [signed, signed.after(60 * minute)]).since(signed);
    assert_eq!(at, 54 * minute);
}
