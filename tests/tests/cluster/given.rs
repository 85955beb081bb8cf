//! A swarm whose root CA a user gives, through the API: no client has flags for it at `swarm init`.

use anyhow::ensure;
use serde_json::{Value, json};
use shoal_tests::{Cluster, Node, Outcome, Response, patiently, wait_for};
use std::{fs, path::PathBuf, process::Command};

/// A root that openssl has made.
struct Root {
    certificate: String,
    key: String,
    file: PathBuf,
}

impl Root {
    fn make(cluster: &Cluster, name: &str) -> Self {
        let [key, file] = ["key", "pem"].map(|end| cluster.folder().join(format!("{name}.{end}")));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-nodes", "-days", "3650", "-subj", &format!("/CN={name}"), "-keyout"]);
        Outcome::of(openssl.arg(&key).arg("-out").arg(&file)).unwrap().ok().unwrap();
        let read = |path| fs::read_to_string(path).unwrap().trim().to_owned();
        Self { certificate: read(&file), key: read(&key), file }
    }

    /// What a join token carries: SHA-256 of its DER form, in base 36.
    fn digest(&self) -> String {
        let script = "openssl x509 -in \"$1\" -outform DER | sha256sum";
        let mut sh = Command::new("sh");
        let sum = Outcome::of(sh.args(["-c", script, "sh"]).arg(&self.file)).unwrap().ok().unwrap();
        let digit = |i: usize| u32::from_str_radix(&sum[2 * i..2 * i + 2], 16).unwrap();
        let mut number: Vec<u32> = (0..32).map(digit).collect();
        let mut text: Vec<char> = (0..50).map(|_| last_digit(&mut number)).collect();
        text.reverse();
        text.into_iter().collect()
    }

    /// Every node trusts it alone and has a certificate of it.
    fn is_in_force(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let shown = cluster.node(0).docker(&["swarm", "ca"])?.ok()?;
        ensure!(shown == self.certificate, "`docker swarm ca` shows {shown}");
        for node in cluster.nodes() {
            let folder = node.data_root().join("swarm/certificates");
            let trusted = fs::read_to_string(folder.join("swarm-root-ca.crt"))?;
            ensure!(trusted.trim() == self.certificate, "{} trusts another root", node.name());
            let mut openssl = Command::new("openssl");
            openssl.args(["verify", "-CAfile"]).arg(&self.file);
            Outcome::of(openssl.arg(folder.join("swarm-node.crt")))?.ok()?;
        }
        Ok(())
    }

    fn give(&self, key: &str) -> Value {
        json!({ "SigningCACert": self.certificate, "SigningCAKey": key })
    }
}

/// Divides a number in base 256 by 36; gives what is left as a digit.
fn last_digit(number: &mut [u32]) -> char {
    let mut left = 0;
    for digit in number {
        left = left * 256 + *digit;
        *digit = left / 36;
        left %= 36;
    }
    char::from_digit(left, 36).unwrap()
}

fn init(node: &Node, ca: &Value) -> Response {
    let addr = node.addr().to_string();
    let spec = json!({ "CAConfig": ca });
    let body = json!({ "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": addr, "Spec": spec });
    node.api("POST", "/swarm/init", &body.to_string()).unwrap()
}

#[test]
fn a_swarm_made_with_a_given_root_has_tokens_and_certificates_of_it_and_moves_to_another() {
    let cluster = Cluster::builder().nodes(2).start().unwrap();
    let (first, second) = (cluster.node(0), cluster.node(1));
    let [given, next] = ["given", "next"].map(|name| Root::make(&cluster, name));
    let refused = init(first, &given.give(&next.key));
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(refused.body.contains("certificate key mismatch"), "{}", refused.body);
    let state = first.docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"]).unwrap().ok();
    assert_eq!(state.unwrap(), "inactive", "nothing was made");

    let made = init(first, &given.give(&given.key));
    assert_eq!(made.status, 200, "{}", made.body);
    let token = first.docker(&["swarm", "join-token", "-q", "worker"]).unwrap().ok().unwrap();
    assert!(token.starts_with(&format!("SWMTKN-1-{}-", given.digest())), "{token}");
    let addr = format!("{}:2377", first.addr());
    second.docker(&["swarm", "join", "--token", &token, &addr]).unwrap().ok().unwrap();
    given.is_in_force(&cluster).unwrap();

    let read = first.api("GET", "/swarm", "").unwrap().body;
    assert!(!read.contains("PRIVATE KEY"), "{read}");
    let swarm: Value = serde_json::from_str(&read).unwrap();
    let mut spec = swarm["Spec"].clone();
    spec["CAConfig"]["SigningCACert"] = next.certificate.as_str().into();
    spec["CAConfig"]["SigningCAKey"] = next.key.as_str().into();
    let update = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
    let updated = first.api("POST", &update, &spec.to_string()).unwrap();
    assert_eq!(updated.status, 200, "{}", updated.body);
    wait_for("the next root", patiently(), || next.is_in_force(&cluster)).unwrap();
    let token = first.docker(&["swarm", "join-token", "-q", "worker"]).unwrap().ok().unwrap();
    assert!(token.starts_with(&format!("SWMTKN-1-{}-", next.digest())), "{token}");
}
