use super::*;
use crate::{UpdateState, UpdateStatus, docker, task::TaskStatus};
use std::sync::Arc;

fn task(id: &str, spec_version: u64, image: &str) -> Task {
    Task {
        id: id.to_owned(),
        meta: Meta::default(),
        service_id: "web".to_owned(),
        slot: 1,
        node_id: None,
        spec: Arc::new(docker::TaskSpec {
            container_spec: Some(docker::TaskSpecContainerSpec {
                image: Some(image.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        spec_version,
        name: format!("web.1.{id}"),
        desired: TaskState::Running,
        not_before: Timestamp(0),
        status: TaskStatus {
            state: TaskState::New,
            since: Timestamp(0),
            message: String::new(),
            err: String::new(),
            container: None,
        },
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        host_ports: Vec::new(),
        made_by: Default::default(),
        job_iteration: None,
        times: Default::default(),
    }
}

fn put(state: &mut State, tasks: impl IntoIterator<Item = Task>) {
    let changes = tasks.into_iter().map(|t| Change::Put(Object::Task(t.into()))).collect();
    state.apply(state.version + 1, Timestamp(7), changes).unwrap();
}

fn shares(state: &State, a: &str, b: &str) -> bool {
    Arc::ptr_eq(&state.tasks[a].spec, &state.tasks[b].spec)
}

#[test]
fn tasks_of_one_template_share_their_specification_however_they_came() {
    let mut state = State::default();
    put(&mut state, [task("a", 1, "x"), task("b", 1, "x"), task("c", 2, "y"), task("d", 1, "z")]);
    assert!(shares(&state, "a", "b"));
    assert!(!shares(&state, "a", "c"));
    assert_eq!(*state.tasks["d"].spec, *task("d", 1, "z").spec, "one that differs keeps its own");
    let written = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::to_string(&state.freeze()).unwrap(), written);
    let read: State = serde_json::from_str(&written).unwrap();
    assert_eq!(read, state);
    assert!(shares(&read, "a", "b"));
    // As the log has it: every task with a specification of its own.
    let mut again = state.tasks["b"].clone();
    again.spec = Arc::new(docker::TaskSpec::clone(&again.spec));
    put(&mut state, [again]);
    assert!(shares(&state, "a", "b"));
}

#[test]
fn a_template_without_tasks_is_forgotten() {
    let mut state = State::default();
    put(&mut state, [task("a", 1, "x")]);
    assert!(state.template("web", 1).is_some());
    let gone = Change::Delete(ObjectKind::Task, "a".to_owned());
    state.apply(2, Timestamp(8), vec![gone]).unwrap();
    assert_eq!(state, State { version: 2, latest: Timestamp(8), ..State::default() });
}

fn network(name: &str, subnet: &str) -> Change {
    Change::Put(Object::Network(Box::new(Network {
        id: format!("id-{name}"),
        meta: Meta::default(),
        spec: docker::NetworkCreateRequest { name: name.to_owned(), ..Default::default() },
        ingress: false,
        subnet: subnet.parse().unwrap(),
        subnet6: None,
    })))
}

#[test]
fn what_is_made_later_never_looks_older_whatever_the_clocks_say() {
    let mut state = State::default();
    for (index, now) in [(1, 100), (2, 40), (3, 100), (4, 200)] {
        let name = format!("n{index}");
        let subnet = format!("10.0.{index}.0/24");
        state.apply(index, Timestamp(now), vec![network(&name, &subnet)]).unwrap();
    }
    let made: Vec<i64> = state.networks.values().map(|n| n.meta.created.0).collect();
    assert_eq!(made, [100, 101, 102, 200]);
}

#[test]
fn an_update_begins_no_earlier_than_what_was_made_before_it_and_keeps_its_beginning() {
    let mut state = State::default();
    put(&mut state, [task("earlier", 1, "x")]);
    let earlier = state.tasks["earlier"].meta.created;
    let mut service = Service::new("web".to_owned(), Default::default(), Timestamp(3));
    service.update_status = Some(UpdateStatus::begin(UpdateState::Updating, "", Timestamp(3)));
    let put = |state: &mut State, service: &Service, now| {
        let changes = vec![Change::Put(Object::Service(Arc::new(service.clone())))];
        state.apply(state.version + 1, Timestamp(now), changes).unwrap();
        state.services["web"].clone()
    };
    // Its proposer's clock is behind that of the one before.
    service = put(&mut state, &service, 3);
    let began = service.update_status.as_ref().unwrap().began;
    assert!(began > earlier, "{began:?}");
    service.update_status.as_mut().unwrap().slots = Some(2);
    service = put(&mut state, &service, 50);
    assert_eq!(service.update_status.as_ref().unwrap().began, began);
    service.update_status = Some(UpdateStatus::begin(UpdateState::Updating, "", Timestamp(99)));
    service = put(&mut state, &service, 99);
    assert_eq!(service.update_status.unwrap().began, Timestamp(99));
}

#[test]
fn two_networks_never_have_the_same_addresses() {
    let mut state = State::default();
    state.apply(1, Timestamp(1), vec![network("a", "10.0.0.0/24")]).unwrap();
    let refused = state.apply(2, Timestamp(2), vec![network("b", "10.0.0.128/25")]);
    let (name, other) = ("b".to_owned(), "a".to_owned());
    assert_eq!(refused, Err(ApplyError::SubnetTaken { name, other }));
    assert_eq!(state.version, 1);
}

fn secret(id: &str, name: &str) -> Change {
    Change::Put(Object::Secret(Arc::new(Dependency {
        id: id.to_owned(),
        meta: Meta::default(),
        name: name.to_owned(),
        labels: BTreeMap::new(),
        content: b"content".to_vec().into(),
        templating: None,
    })))
}

fn using(state: &State, id: &str, secrets: &[&str]) -> Service {
    let secrets = secrets.iter().map(|id| docker::TaskSpecContainerSpecSecrets {
        secret_id: Some((*id).to_owned()),
        ..Default::default()
    });
    let spec = docker::ServiceSpec {
        name: Some(id.to_owned()),
        task_template: Some(docker::TaskSpec {
            container_spec: Some(docker::TaskSpecContainerSpec {
                secrets: Some(secrets.collect()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    match state.services.get(id) {
        Some(present) => {
            let previous_spec = Some(present.spec.clone());
            Service { spec, previous_spec, ..present.clone() }
        }
        None => Service::new(id.to_owned(), spec, Timestamp(0)),
    }
}

fn apply(state: &mut State, change: Change) -> Result<(), String> {
    let applied = state.apply(state.version + 1, Timestamp(7), vec![change]);
    applied.map_err(|error| error.to_string())
}

fn serve(state: &mut State, id: &str, secrets: &[&str]) -> Result<(), String> {
    let service = using(state, id, secrets);
    apply(state, Change::Put(Object::Service(Arc::new(service))))
}

fn gone(id: &str) -> Change {
    Change::Delete(ObjectKind::Secret, id.to_owned())
}

#[test]
fn a_secret_stays_as_long_as_a_service_refers_to_it() {
    let mut state = State::default();
    apply(&mut state, secret("s1", "key")).unwrap();
    assert_eq!(apply(&mut state, secret("s2", "key")).unwrap_err(), "secret key already exists");
    serve(&mut state, "web", &["s1"]).unwrap();
    let refused = apply(&mut state, gone("s1")).unwrap_err();
    assert_eq!(refused, "secret 'key' is in use by the following service: web");
    serve(&mut state, "app", &["s1"]).unwrap();
    let refused = apply(&mut state, gone("s1")).unwrap_err();
    assert_eq!(refused, "secret 'key' is in use by the following services: app, web");
    // It is so after a restart, too.
    let mut state: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    assert_eq!(apply(&mut state, gone("s1")).unwrap_err(), refused);
    serve(&mut state, "web", &[]).unwrap();
    apply(&mut state, Change::Delete(ObjectKind::Service, "app".to_owned())).unwrap();
    apply(&mut state, gone("s1")).unwrap();
    let read: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    assert_eq!(read, state, "nothing is left of the last one");
    apply(&mut state, secret("s3", "key")).unwrap();
    assert_eq!(state.dependency_named(DependencyKind::Secret, "key").unwrap().id, "s3");
}

#[test]
fn what_a_service_refers_to_newly_must_be_there() {
    let mut state = State::default();
    assert_eq!(serve(&mut state, "web", &["s1"]).unwrap_err(), "secret not found: s1");
    apply(&mut state, secret("s1", "key")).unwrap();
    serve(&mut state, "web", &["s1"]).unwrap();
    serve(&mut state, "web", &[]).unwrap();
    apply(&mut state, gone("s1")).unwrap();
    // An update that goes back by itself is not held up.
    serve(&mut state, "web", &["s1"]).unwrap();
    assert_eq!(serve(&mut state, "web", &["s1", "s2"]).unwrap_err(), "secret not found: s2");
}
