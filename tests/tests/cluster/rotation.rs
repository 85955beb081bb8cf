//! The root CA is rotated while everything runs, on the managers' cluster.

use super::managers::{MANAGERS, Traffic, WORKER, Writes, cluster, leader, whole};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use shoal_tests::{Cluster, Node, Outcome, patiently, skip, wait_for};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What a node logs when its session with the manager ends or cannot be begun.
const LOST: &str = "no session with the manager";

fn docker(node: &Node, args: &[&str]) -> String {
    node.docker(args).unwrap().ok().unwrap()
}

/// The root in force, as the real client shows it.
fn root(node: &Node) -> String {
    docker(node, &["swarm", "ca"])
}

fn rotating(node: &Node) -> anyhow::Result<bool> {
    let swarm: Value = serde_json::from_str(&node.api("GET", "/swarm", "")?.body)?;
    swarm["RootRotationInProgress"].as_bool().context("no word of a rotation")
}

/// Waits until a rotation is over, and every node has the new root and a certificate of it on disk.
fn rotated(cluster: &Cluster, asked: &Node) -> String {
    wait_for("the rotation to end", patiently(), || {
        ensure!(!rotating(asked)?, "it goes on");
        Ok(())
    })
    .unwrap();
    let new = root(asked);
    let file = cluster.folder().join("new-root.pem");
    fs::write(&file, &new).unwrap();
    wait_for("every node to be of the new root alone", patiently(), || {
        for node in cluster.nodes() {
            let there = fs::read_to_string(certificates(node).join("swarm-root-ca.crt"))?;
            ensure!(there.trim() == new, "{} trusts another root", node.name());
            // Without the cross-signed certificate that may follow it.
            let mut openssl = Command::new("openssl");
            openssl.args(["verify", "-CAfile"]).arg(&file);
            Outcome::of(openssl.arg(certificates(node).join("swarm-node.crt")))?.ok()?;
        }
        let listed = asked.docker(&["node", "ls", "--format", "{{.TLSStatus}}"])?.ok()?;
        ensure!(listed.lines().all(|status| status == "Ready"), "{listed}");
        Ok(())
    })
    .unwrap();
    new
}

fn certificates(node: &Node) -> PathBuf {
    node.data_root().join("swarm/certificates")
}

fn lost_sessions(cluster: &Cluster) -> usize {
    cluster.nodes().iter().map(|node| node.logs().matches(LOST).count()).sum()
}

#[test]
fn a_rotation_of_the_root_fails_no_write_no_request_and_ends_no_session() {
    let cluster = cluster();
    let traffic = Traffic::start(&cluster, "node.id!=none");
    let leader_before = leader(&cluster, 0).unwrap();
    let before = root(cluster.node(0));
    let tokens = docker(cluster.node(0), &["swarm", "join-token", "-q", "worker"]);
    let lost = lost_sessions(&cluster);
    let asked = cluster.node((leader_before + 1) % MANAGERS);
    let writes = Writes::new("mgr-root");
    let shown = writes.during(&cluster, &[0, 1, 2], || {
        wait_for("some writes", patiently(), || {
            ensure!(writes.count() > 10);
            Ok(())
        })?;
        // The client waits for all nodes, and shows the root then.
        let shown = asked.docker(&["swarm", "ca", "--rotate"])?.ok()?;
        let after = writes.count() + 5;
        wait_for("more writes", patiently(), || {
            ensure!(writes.count() > after);
            Ok(())
        })?;
        Ok(shown)
    });
    let new = rotated(&cluster, asked);
    assert!(shown.unwrap().ends_with(&new), "the client shows the new root");
    assert_ne!(new, before);
    assert_eq!(writes.failed(), Vec::<String>::new(), "no write may fail");
    assert_eq!(lost_sessions(&cluster), lost, "a session ended");
    assert_eq!(leader(&cluster, 0).unwrap(), leader_before, "another leads");
    assert_ne!(docker(asked, &["swarm", "join-token", "-q", "worker"]), tokens);
    // Our own client shows the same, and waits as the real one does.
    assert_eq!(asked.shoal(&["swarm", "ca"]).unwrap().ok().unwrap(), new);
    let again = asked.shoal(&["swarm", "ca", "--rotate"]).unwrap().ok().unwrap();
    assert_eq!(rotated(&cluster, asked), again);
    whole(&cluster);
    writes.check(&cluster);
    traffic.stop();
}

#[test]
fn a_rotation_survives_its_leader_and_waits_for_it_to_come_back() {
    let cluster = cluster();
    let traffic = Traffic::start(&cluster, "node.id!=none");
    let before = root(cluster.node(0));
    let leader = leader(&cluster, 0).unwrap();
    let others: Vec<usize> = (0..MANAGERS).filter(|index| *index != leader).collect();
    let asked = cluster.node(others[0]);
    let writes = Writes::new("mgr-root-kill");
    let held = writes.during(&cluster, &others, || {
        asked.docker(&["swarm", "ca", "--rotate", "--detach"])?.ok()?;
        cluster.node(leader).kill_daemon()?;
        let lost = cluster.node(leader).name();
        wait_for("all others to have renewed", patiently(), || {
            let swarm: Value = serde_json::from_str(&asked.api("GET", "/swarm", "")?.body)?;
            let nodes: Value = serde_json::from_str(&asked.api("GET", "/nodes", "")?.body)?;
            let key = &swarm["TLSInfo"]["CertIssuerPublicKey"];
            let left = nodes.as_array().context("no list")?.iter().filter(|node| {
                node["Description"]["Hostname"] != lost
                    && node["Description"]["TLSInfo"]["CertIssuerPublicKey"] != *key
            });
            ensure!(left.count() == 0, "some have not");
            Ok(())
        })?;
        rotating(asked)
    });
    let finished_early = !held.unwrap();
    // It may have renewed before it was killed: then there was nothing to wait for.
    let log = cluster.node(leader).logs();
    cluster.node(leader).start_daemon().unwrap();
    assert!(!finished_early || log.contains("the certificate was renewed"));
    assert_ne!(rotated(&cluster, asked), before);
    whole(&cluster);
    writes.check(&cluster);
    traffic.stop();
}

#[test]
fn a_worker_that_was_removed_while_it_was_away_is_told_to_join_again() {
    let cluster = cluster();
    let (first, worker) = (cluster.node(0), cluster.node(WORKER));
    let id = docker(worker, &["info", "--format", "{{.Swarm.NodeID}}"]);
    worker.stop_daemon().unwrap();
    docker(first, &["swarm", "ca", "--rotate", "--detach"]);
    wait_for("the managers to have renewed", patiently(), || {
        let format = "{{.Status.State}}";
        let state = first.docker(&["node", "inspect", &id, "--format", format])?.ok()?;
        ensure!(state == "down", "{state}");
        ensure!(rotating(first)?, "it did not wait for the worker");
        Ok(())
    })
    .unwrap();
    docker(first, &["node", "rm", &id]);
    wait_for("the rotation to end without it", patiently(), || {
        ensure!(!rotating(first)?);
        Ok(())
    })
    .unwrap();
    worker.start_daemon().unwrap();
    let said = wait_for("the worker to know", patiently(), || {
        let said = worker.docker(&["info", "--format", "{{.Swarm.Error}}"])?.ok()?;
        ensure!(!said.is_empty(), "it has not heard");
        Ok(said)
    })
    .unwrap();
    assert!(said.contains("root CA was rotated while this node was away"), "{said}");
    assert!(said.contains("leave with `swarm leave --force` and join again"), "{said}");
    docker(worker, &["swarm", "leave", "--force"]);
    let token = docker(first, &["swarm", "join-token", "-q", "worker"]);
    docker(worker, &["swarm", "join", "--token", &token, &format!("{}:2377", first.addr())]);
    rotated(&cluster, first);
    whole(&cluster);
}

/// A running cfssl, of Debian's package.
struct Cfssl {
    child: Child,
    url: String,
    root: PathBuf,
}

impl Drop for Cfssl {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How cfssl signs: nodes by default, and roots with the profile that is asked for then.
const SIGNING: &str = r#"{"signing": {
    "default": {"expiry": "8760h", "usages": ["signing", "key encipherment", "server auth", "client auth"]},
    "profiles": {"CA": {"expiry": "43800h", "usages": ["cert sign", "crl sign"],
        "is_ca": true, "ca_constraint": {"is_ca": true}}}}}"#;

impl Cfssl {
    /// Starts it on a node's host, with a root of its own. It asks for certificates of that or of `known`.
    fn start(program: &Path, cluster: &Cluster, node: &Node, known: &str) -> Self {
        let dir = cluster.folder().join("cfssl");
        fs::create_dir(&dir).unwrap();
        let openssl = |line: &str| {
            let mut command = Command::new("openssl");
            Outcome::of(command.current_dir(&dir).args(line.split(' '))).unwrap().ok().unwrap()
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=outside -days 3650"
        ));
        openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
        fs::write(dir.join("names"), format!("subjectAltName=IP:{}", node.addr())).unwrap();
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 \
             -extfile names -out server.pem",
        );
        let root = dir.join("ca.pem");
        let both = format!("{known}\n{}", fs::read_to_string(&root).unwrap());
        fs::write(dir.join("clients.pem"), both).unwrap();
        fs::write(dir.join("signing.json"), SIGNING).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let addr = node.addr().to_string();
        let mut command = node.command(program);
        command.args(["serve", "-address", &addr, "-port", "8888"]);
        for (flag, file) in [
            ("-ca", "ca.pem"),
            ("-ca-key", "ca.key"),
            ("-config", "signing.json"),
            ("-tls-cert", "server.pem"),
            ("-tls-key", "server.key"),
            ("-mutual-tls-ca", "clients.pem"),
        ] {
            command.arg(flag).arg(dir.join(file));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        wait_for("cfssl to listen", patiently(), || {
            let listening = node.run(&["ss", "-Hltn", "sport = :8888"])?.ok()?;
            ensure!(!listening.is_empty(), "{}", fs::read_to_string(dir.join("log"))?);
            Ok(())
        })
        .unwrap();
        Self { child, url: format!("https://{addr}:8888/api/v1/cfssl/sign"), root }
    }
}

#[test]
fn a_cluster_moves_to_a_real_cfssl_and_back() {
    let Some(program) = std::env::var_os("SHOAL_CFSSL").map(PathBuf::from) else {
        let reason =
            "SHOAL_CFSSL does not name it; `cargo xtask test` unpacks Debian's golang-cfssl";
        return skip("an external CA with the real cfssl", reason);
    };
    let cluster = cluster();
    let first = cluster.node(0);
    let cfssl = Cfssl::start(&program, &cluster, first, &root(first));
    let file = cfssl.root.to_str().unwrap();
    let external = format!("protocol=cfssl,url={},cacert={file}", cfssl.url);
    let args = ["swarm", "ca", "--rotate", "--ca-cert", file, "--external-ca", &external];
    let shown = first.docker(&args).unwrap().ok().unwrap();
    let outside = fs::read_to_string(&cfssl.root).unwrap();
    assert!(shown.ends_with(outside.trim()), "{shown}");
    assert_eq!(rotated(&cluster, first), outside.trim());
    // A worker comes in anew by way of it.
    let worker = cluster.node(WORKER);
    let id = docker(worker, &["info", "--format", "{{.Swarm.NodeID}}"]);
    docker(worker, &["swarm", "leave"]);
    docker(first, &["node", "rm", "--force", &id]);
    let token = docker(first, &["swarm", "join-token", "-q", "worker"]);
    docker(worker, &["swarm", "join", "--token", &token, &format!("{}:2377", first.addr())]);
    let issuer = Command::new("openssl")
        .args(["x509", "-noout", "-issuer", "-in"])
        .arg(certificates(worker).join("swarm-node.crt"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&issuer.stdout).contains("outside"), "{issuer:?}");
    // Back to a root of the cluster's own, which cfssl certifies.
    docker(first, &["swarm", "ca", "--rotate"]);
    let own = rotated(&cluster, first);
    assert_ne!(own, outside.trim());
    // It is still named, but for another root; a dead one is no hindrance.
    drop(cfssl);
    docker(first, &["swarm", "ca", "--rotate"]);
    assert_ne!(rotated(&cluster, first), own);
    whole(&cluster);
}
