//! What flags of services make of a specification.

use super::{
    Parsed,
    forms::{network, port, preference, words},
    from_create,
    policies::generic_resources,
    update,
};
use crate::args::{ServiceCreate, ServiceUpdate};
use clap::Parser;
use shoal_model::docker;

#[derive(Parser)]
struct Create {
    #[command(flatten)]
    create: ServiceCreate,
}

#[derive(Parser)]
struct Update {
    #[command(flatten)]
    update: ServiceUpdate,
}

#[test]
fn health_flags_change_only_what_they_name() {
    let create = |flags: &[&str]| Create::try_parse_from([&["x"], flags, &["image"]].concat());
    let flags = ["--health-cmd", "wget -q localhost", "--health-interval", "2s"];
    let mut spec = from_create(&create(&flags).ok().unwrap().create).unwrap();
    let check = |spec: &docker::ServiceSpec| {
        let template = spec.task_template.as_ref().unwrap();
        template.container_spec.as_ref().unwrap().health_check.clone()
    };
    let words = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect());
    let first = check(&spec).unwrap();
    assert_eq!(first.test, words(&["CMD-SHELL", "wget -q localhost"]));
    assert_eq!((first.interval, first.retries), (Some(2_000_000_000), None));
    let mut change = |flags: &[&str]| {
        let flags = Update::try_parse_from([&["x"], flags, &["web"]].concat()).ok().unwrap();
        update(&mut spec, &flags.update).unwrap();
        check(&spec).unwrap()
    };
    let second = change(&["--health-retries", "5"]);
    assert_eq!((&second.test, second.retries), (&first.test, Some(5)));
    assert_eq!(change(&["--no-healthcheck"]).test, words(&["NONE"]));
    let last = change(&["--health-timeout", "1s"]);
    assert_eq!((last.test, last.timeout), (None, Some(1_000_000_000)), "the image's again");
    assert!(create(&["--no-healthcheck", "--health-cmd", "true"]).is_err());
}

#[test]
fn ports_are_read_in_both_forms() {
    let short = port("8080:80/udp").unwrap();
    assert_eq!((short.published_port, short.target_port), (Some(8080), Some(80)));
    assert_eq!(short.protocol, Some(docker::EndpointPortConfigProtocolEnum::UDP));
    assert_eq!(port("published=8080,target=80,protocol=udp").unwrap(), short);
    assert_eq!(port("80").unwrap().published_port, None);
    for bad in ["", "x", "80:", "1:2:3", "80/icmp", "target=80,color=red", "70000", "8080:0"] {
        assert!(port(bad).is_err(), "{bad}");
    }
}

#[test]
fn preferences_and_generic_resources_are_read_in_dockers_words() {
    let over = |text| preference(text).map(|p| p.spread.unwrap().spread_descriptor.unwrap());
    assert_eq!(over("spread=node.labels.zone").unwrap(), "node.labels.zone");
    assert_eq!(
        over("pack=x").unwrap_err(),
        "unsupported placement preference pack (only spread is supported)"
    );
    assert!(over("spread").is_err());
    let mut spec = docker::ServiceSpec::default();
    let mut kinds = |added: &[&str], removed: &[&str]| {
        let own = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        generic_resources(&mut spec, &own(added), &own(removed))?;
        let held = spec.task_template.clone().unwrap().resources.unwrap().reservations.unwrap();
        let one = |g: docker::GenericResourcesInner| {
            let discrete = g.discrete_resource_spec.unwrap();
            format!("{}={}", discrete.kind.unwrap(), discrete.value.unwrap())
        };
        Parsed::Ok(held.generic_resources.unwrap().into_iter().map(one).collect::<Vec<_>>())
    };
    assert_eq!(kinds(&["gpu=2,ssd=1"], &[]).unwrap(), ["gpu=2", "ssd=1"]);
    assert_eq!(kinds(&["gpu=3"], &["ssd"]).unwrap(), ["gpu=3"]);
    assert!(kinds(&["gpu=UUID"], &[]).unwrap_err().contains("Named Generic Resources"));
    assert!(kinds(&["gpu"], &[]).is_err());
}

#[test]
fn commands_split_as_in_a_shell() {
    assert_eq!(
        words(r#"sh -c 'a b' "c \" d" e\ f ''"#).unwrap(),
        ["sh", "-c", "a b", "c \" d", "e f", ""]
    );
    assert!(words("'open").is_err());
    assert!(words("end\\").is_err());
}

#[test]
fn networks_carry_their_aliases() {
    let n = network("name=app,alias=a,alias=b").unwrap();
    assert_eq!(n.target.as_deref(), Some("app"));
    assert_eq!(n.aliases, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert!(network("alias=a").is_err());
    assert!(network("name=a,speed=9").is_err());
}
