//! The router without a socket: versions, headers, errors, filters, references.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shoal_api::{memory::MemorySwarm, router, testserver::TestServer};
use std::{thread, time::Duration};
use tower::ServiceExt;

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

struct Fixture {
    routes: Router,
    server: TestServer,
}

impl Fixture {
    fn new(swarm: MemorySwarm) -> Fixture {
        let server = TestServer::start(swarm).unwrap();
        Fixture { routes: router(server.ctx.clone()), server }
    }

    fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        self.server.handle.block_on(async {
            let response = self.routes.clone().oneshot(request).await.unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            Answer { status, headers, text: String::from_utf8_lossy(&bytes).into_owned() }
        })
    }

    fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null)
    }

    fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body)
    }

    fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Value::Null)
    }

    fn service(&self, name: &str) -> String {
        let spec = json!({
            "Name": name, "Mode": { "Replicated": { "Replicas": 2 } },
            "Labels": { "team": name },
            "TaskTemplate": { "ContainerSpec": { "Image": "i:1" } },
        });
        let answer = self.post("/services/create", spec);
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["ID"].as_str().unwrap().to_owned()
    }
}

fn filter(value: Value) -> String {
    let text = value.to_string();
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[test]
fn every_answer_tells_the_api_version_also_errors_and_unknown_pages() {
    let f = Fixture::new(MemorySwarm::new());
    for (path, status) in [
        ("/_ping", 200),
        ("/v1.24/_ping", 200),
        ("/v1.50/version", 200),
        ("/version", 200),
        ("/v1.50/nowhere", 404),
        ("/v1.23/version", 400),
        ("/v1.51/version", 400),
        ("/nodes", 503),
    ] {
        let answer = f.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        for header in ["api-version", "ostype", "server", "docker-experimental"] {
            assert!(answer.headers.contains_key(header), "{path} has no {header}");
        }
    }
    assert_eq!(f.get("/nowhere").message(), "page not found");
    assert_eq!(f.post("/_ping", Value::Null).message(), "page not found");
}

#[test]
fn a_ping_tells_the_membership() {
    let word = |swarm| Fixture::new(swarm).get("/_ping").headers["swarm"].clone();
    assert_eq!(word(MemorySwarm::new()), "inactive");
    assert_eq!(word(MemorySwarm::three_nodes()), "active/manager");
}

#[test]
fn outside_a_cluster_cluster_commands_say_what_to_do() {
    let f = Fixture::new(MemorySwarm::new());
    for path in [
        "/nodes",
        "/services",
        "/tasks",
        "/swarm",
        "/secrets",
        "/services/x",
        "/tasks/x/logs?stdout=1",
    ] {
        let answer = f.get(path);
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.message().contains("docker swarm init"), "{path}: {}", answer.text);
    }
    assert_eq!(f.get("/networks").text, "[]");
}

#[test]
fn objects_are_found_by_name_id_and_prefix_and_an_ambiguous_prefix_is_refused() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    let web = f.service("web");
    f.service("db");
    for reference in ["web", web.as_str()] {
        assert_eq!(f.get(&format!("/services/{reference}")).json()["ID"], web.as_str());
    }
    let answer = f.get("/services/service0");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.message(), "service service0 is ambiguous (2 matches found)");
    let answer = f.get("/services/none");
    assert_eq!(
        (answer.status, answer.message().as_str()),
        (StatusCode::NOT_FOUND, "service none not found")
    );
    assert_eq!(f.get("/nodes/beta").json()["Description"]["Hostname"], "beta");
}

#[test]
fn filters_select_and_unknown_ones_are_refused() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    f.service("web");
    f.service("web-2");
    f.service("db");
    let count = |path: &str, value: Value| {
        let answer = f.get(&format!("{path}?filters={}", filter(value)));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json().as_array().unwrap().len()
    };
    assert_eq!(count("/services", json!({ "name": { "web": true } })), 2);
    assert_eq!(count("/services", json!({ "name": ["web", "db"] })), 3);
    assert_eq!(count("/services", json!({ "label": ["team=db"] })), 1);
    assert_eq!(count("/services", json!({ "mode": ["global"] })), 0);
    assert_eq!(count("/tasks", json!({ "service": ["db"] })), 2);
    assert_eq!(count("/tasks", json!({ "node": ["self"] })), 2);
    assert_eq!(count("/tasks", json!({ "desired-state": ["shutdown"] })), 0);
    assert_eq!(count("/tasks", json!({ "_up-to-date": ["true"], "service": ["web"] })), 2);
    assert_eq!(count("/nodes", json!({ "role": ["worker"] })), 2);
    assert_eq!(count("/networks", json!({ "driver": ["overlay"] })), 1);
    assert_eq!(count("/containers/json", json!({ "status": ["exited"] })), 0);
    for path in ["/services", "/tasks", "/nodes", "/networks", "/images/json", "/containers/json"] {
        let answer = f.get(&format!("{path}?filters={}", filter(json!({ "colour": ["red"] }))));
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.message(), "invalid filter 'colour'", "{path}");
    }
}

#[test]
fn a_service_is_read_back_with_its_replicas_and_an_update_that_changes_nothing_keeps_its_tasks() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    let created = f.post(
        "/services/create",
        json!({ "Name": "web", "Mode": { "Replicated": {} }, "TaskTemplate": { "ContainerSpec": { "Image": "i" } } }),
    );
    assert_eq!(created.status, 201);
    let service = f.get("/services/web").json();
    assert_eq!(service["Spec"]["Mode"]["Replicated"]["Replicas"], 1);
    assert_eq!(
        f.get("/services/web?insertDefaults=true").json()["Spec"]["TaskTemplate"]["RestartPolicy"]
            ["Delay"],
        5_000_000_000_i64
    );
    let tasks = || {
        let tasks = f.get("/tasks").json();
        tasks.as_array().unwrap().iter().map(|t| t["ID"].to_string()).collect::<Vec<_>>()
    };
    let before = tasks();
    let version = &service["Version"]["Index"];
    let answer =
        f.post(&format!("/services/web/update?version={version}"), service["Spec"].clone());
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(tasks(), before);
    let answer =
        f.post(&format!("/services/web/update?version={version}"), service["Spec"].clone());
    assert_eq!(answer.status, 500);
    assert_eq!(answer.message(), "rpc error: code = Unknown desc = update out of sequence");
}

#[test]
fn a_secret_is_kept_labelled_and_removed_and_its_content_is_in_no_answer() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    for (kind, shown) in [("secrets", false), ("configs", true)] {
        let create = format!("/{kind}/create");
        let made = f.post(
            &create,
            json!({ "Name": "key", "Data": "Y29udGVudA==", "Labels": { "a": "b" } }),
        );
        assert_eq!(made.status, 201, "{}", made.text);
        let id = made.json()["ID"].as_str().unwrap().to_owned();
        for path in [format!("/{kind}/key"), format!("/{kind}/{id}"), format!("/{kind}")] {
            let answer = f.get(&path);
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.text.contains("Y29udGVudA=="), shown, "{path}");
        }
        let read = f.get(&format!("/{kind}/key")).json();
        assert_eq!(read["Spec"]["Labels"]["a"], "b");
        let again = f.post(&create, json!({ "Name": "key", "Data": "YQ==" }));
        assert_eq!(again.status, 409, "{}", again.text);
        let bad = f.post(&create, json!({ "Name": "other", "Data": "?" }));
        assert_eq!((bad.status.as_u16(), bad.text.contains('?')), (400, false), "{}", bad.text);
        let count = |filters: Value| {
            let answer = f.get(&format!("/{kind}?filters={}", filter(filters)));
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.json().as_array().unwrap().len()
        };
        assert_eq!(count(json!({ "name": ["ke"], "label": ["a=b"] })), 1);
        assert_eq!(count(json!({ "name": ["x"] })), 0);
        assert_eq!(count(json!({ "id": [id.clone()] })), 1);
        // Labels change, and nothing else does.
        let version = &read["Version"]["Index"];
        let update = format!("/{kind}/key/update?version={version}");
        let refused = f.post(&update, json!({ "Name": "key", "Data": "YQ==" }));
        assert_eq!(refused.status, 400);
        assert!(refused.message().ends_with("only updates to Labels are allowed"));
        let mut spec = read["Spec"].clone();
        spec["Labels"] = json!({ "c": "d" });
        assert_eq!(f.post(&update, spec.clone()).status, 200);
        assert_eq!(f.get(&format!("/{kind}/key")).json()["Spec"]["Labels"], json!({ "c": "d" }));
        assert_eq!(f.post(&update, spec).status, 500, "made from an older version");
        assert_eq!(f.delete(&format!("/{kind}/key")).status, 204);
        assert_eq!(f.delete(&format!("/{kind}/key")).status, 404);
    }
    let names = filter(json!({ "names": ["key"] }));
    assert_eq!(f.get(&format!("/secrets?filters={names}")).status, 200);
    assert_eq!(f.get(&format!("/configs?filters={names}")).status, 400);
}

#[test]
fn what_this_version_lacks_is_refused_and_never_ignored() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    for (path, body) in [
        ("/containers/create", json!({ "Image": "i" })),
        ("/volumes/create", json!({ "Name": "s" })),
        ("/images/create?fromImage=x&tag=1", Value::Null),
        ("/swarm/update?version=1", json!({ "TaskDefaults": { "LogDriver": { "Name": "x" } } })),
        ("/build", Value::Null),
    ] {
        let answer = f.post(path, body);
        assert_eq!(answer.status, 501, "{path}: {}", answer.text);
        assert!(answer.message().contains("not supported in this version"), "{path}");
    }
    for path in [
        "/secrets/x",
        "/configs/x",
        "/volumes/x",
        "/plugins/x/json",
        "/containers/x/json",
        "/images/a/b/json",
        "/networks/x",
        "/exec/x/json",
    ] {
        assert_eq!(f.get(path).status, 404, "{path}");
    }
}

#[test]
fn an_external_ca_of_an_unknown_protocol_is_refused_in_docker_s_words() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    let with = |protocol: &str| {
        json!({ "CAConfig": { "ExternalCAs": [
        { "Protocol": protocol, "URL": "https://ca.example/", "Options": null } ] } })
    };
    for (path, body) in [
        ("/swarm/update?version=1", with("acme")),
        ("/swarm/init", json!({ "Spec": with("acme") })),
    ] {
        let answer = f.post(path, body);
        let said = (answer.status.as_u16(), answer.message());
        assert_eq!(said, (400, "invalid protocol: \"acme\"".to_owned()), "{path}");
    }
    let answer = f.post("/swarm/update?version=1", with("CFSSL"));
    assert_ne!(answer.status, 400, "in whatever case: {}", answer.text);
}

#[test]
fn broken_bodies_and_parameters_are_client_errors() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    let web = f.service("web");
    for (path, body) in [
        ("/services/create", Value::Null),
        ("/services/create", json!([1])),
        ("/services/create", json!({ "Name": 5 })),
        ("/networks/create", json!({ "Driver": "overlay" })),
        ("/swarm/init", json!({ "Availability": "sometimes" })),
        (&format!("/services/{web}/update"), json!({})),
        (&format!("/services/{web}/update?version=x"), json!({})),
        (&format!("/services/{web}/update?version=1&rollback=twice"), json!({})),
    ] {
        let answer = f.post(path, body);
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
    }
    let long = json!({ "Name": "x".repeat(3 << 20) });
    assert_eq!(f.post("/services/create", long).status, 400);
    assert_eq!(
        f.get("/services/web/logs").message(),
        "Bad parameters: you must choose at least one stream"
    );
    assert_eq!(f.get("/services/web/logs?stdout=1&tail=few").status, 400);
}

#[test]
fn log_lines_come_in_frames_with_the_context_clients_need() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    f.service("web");
    let answer = f.get("/services/web/logs?stdout=1&details=1");
    assert_eq!(answer.headers["content-type"], "application/vnd.docker.multiplexed-stream");
    assert!(answer.text.starts_with("\u{1}\0\0\0\0\0\0"), "{:?}", answer.text);
    for key in [
        "com.docker.swarm.node.id=node",
        "com.docker.swarm.service.id=service",
        "com.docker.swarm.task.id=task",
    ] {
        assert_eq!(answer.text.matches(key).count(), 2, "{key}: {:?}", answer.text);
    }
    assert!(!answer.text.contains("err of slot"));
}

#[test]
fn metrics_are_gathered_anew_for_each_request() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let f = Fixture::new(MemorySwarm::new());
    let count = std::sync::Arc::new(AtomicU32::new(0));
    let gather = move || format!("scrapes {}\n", count.fetch_add(1, Ordering::Relaxed));
    let routes = shoal_api::metrics_router(gather);
    for expected in ["scrapes 0\n", "scrapes 1\n"] {
        let request = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
        let text = f.server.handle.block_on(async {
            let response = routes.clone().oneshot(request).await.unwrap();
            assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
            response.into_body().collect().await.unwrap().to_bytes()
        });
        assert_eq!(text, expected);
    }
}

#[test]
fn a_refusal_is_heard_by_a_client_that_is_still_writing() {
    use std::io::{Read, Write};
    let f = Fixture::new(MemorySwarm::three_nodes());
    let path = f.server.host();
    let path = path.strip_prefix("unix://").unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    let body = vec![b'x'; 8 << 20];
    let head = format!(
        "POST /v1.50/build HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert!(answer.contains("not supported in this version"), "{answer}");
}

/// The events that are kept, once one of a secret made here is among them. What was before the server's
/// first look is no news, so there may have to be several.
fn events(f: &Fixture, probe: &str, filters: Value) -> Vec<Value> {
    for round in 0..100 {
        let name = format!("{probe}-{round}");
        f.post("/secrets/create", json!({ "Name": name, "Data": "YQ==" }));
        thread::sleep(Duration::from_millis(200));
        let told = |filters: Value| -> Vec<Value> {
            let now = chrono::Utc::now().timestamp_micros();
            let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
            let path =
                format!("/events?since=1&until={seconds}.{micros:06}&filters={}", filter(filters));
            let answer = f.get(&path);
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        if !told(json!({ "secret": [name] })).is_empty() {
            return told(filters);
        }
    }
    panic!("no event of {probe} is told");
}

#[test]
fn events_of_the_cluster_are_told_to_those_who_ask_for_what_was() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    events(&f, "begin", json!({}));
    let id = f.service("web");
    f.post("/configs/create", json!({ "Name": "c", "Data": "YQ==" }));
    let told = events(&f, "first", json!({ "service": ["web"], "event": ["create"] }));
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["Type"], &told[0]["scope"]), (&json!("service"), &json!("swarm")));
    assert_eq!(told[0]["Actor"], json!({ "ID": id, "Attributes": { "name": "web" } }));
    let read = f.get("/services/web").json();
    let mut spec = read["Spec"].clone();
    spec["Mode"]["Replicated"]["Replicas"] = 4.into();
    let version = &read["Version"]["Index"];
    assert_eq!(f.post(&format!("/services/web/update?version={version}"), spec).status, 200);
    let told = events(&f, "second", json!({ "type": ["service"], "label": ["replicas.new=4"] }));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["Actor"]["Attributes"]["replicas.old"], "2");
    assert_eq!(f.delete("/configs/c").status, 204);
    let told = events(&f, "third", json!({ "config": ["c"], "label": ["name=c"] }));
    let actions: Vec<&Value> = told.iter().map(|event| &event["Action"]).collect();
    assert_eq!(actions, ["create", "remove"]);
}

#[test]
fn events_are_refused_where_there_are_none_and_where_the_question_makes_no_sense() {
    let f = Fixture::new(MemorySwarm::three_nodes());
    for (query, status, words) in [
        ("since=20&until=10", 400, "`since` time (20) cannot be after `until` time (10)"),
        ("since=soon", 400, "invalid value \"soon\" for since"),
        ("filters={\"colour\":[\"red\"]}", 400, "invalid filter 'colour'"),
        ("filters={\"type\":[\"container\"]}", 501, "events of type container are not supported"),
    ] {
        let query = query.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        let answer = f.get(&format!("/events?{query}"));
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(answer.message().contains(words), "{}", answer.text);
    }
    let none = Fixture::new(MemorySwarm::new()).get("/events");
    assert_eq!(none.status, 501);
    assert!(none.message().contains("this node is no manager"), "{}", none.text);
}
