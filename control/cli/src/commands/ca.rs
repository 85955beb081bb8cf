//! `swarm ca`: shows the root CA and rotates it. Also `--external-ca`, wherever it is given.
use crate::{
    args::SwarmCa,
    client::Client,
    error::{CliError, CliResult},
    text::at,
};
use serde_json::{Value, json};
use std::{fs, io::IsTerminal, path::Path, time::Duration};

/// Pause between two looks (Docker's).
const LOOK: Duration = Duration::from_millis(200);

/// Longest PEM file, bytes; the daemon takes less.
const MAX_FILE: u64 = 1 << 20;

pub(crate) async fn run(client: &Client, ca: SwarmCa) -> CliResult<()> {
    let mut swarm: Value = client.get("/swarm").await?;
    if !ca.rotate {
        let given = [
            ("ca-cert", ca.ca_cert.is_some()),
            ("ca-key", ca.ca_key.is_some()),
            ("cert-expiry", ca.cert_expiry.is_some()),
            ("external-ca", !ca.external_ca.is_empty()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            return Err(CliError::usage(format!(
                "`--{flag}` flag requires the `--rotate` flag to update the CA"
            )));
        }
        return show(&swarm);
    }
    if !ca.external_ca.is_empty() && ca.ca_cert.is_none() {
        return Err(CliError::usage(
            "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - \
             to add an external CA with the current root CA certificate, use the `update` command instead",
        ));
    }
    if ca.ca_cert.is_some() && ca.external_ca.is_empty() && ca.ca_key.is_none() {
        return Err(CliError::usage(
            "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well",
        ));
    }
    let certificate = ca.ca_cert.as_deref().map(read).transpose()?.unwrap_or_default();
    let key = ca.ca_key.as_deref().map(read).transpose()?.unwrap_or_default();
    let version = swarm["Version"]["Index"].clone();
    let config = &mut swarm["Spec"]["CAConfig"];
    if let Some(expiry) = ca.cert_expiry {
        config["NodeCertExpiry"] = expiry.into();
    }
    if !ca.external_ca.is_empty() {
        config["ExternalCAs"] = external(&ca.external_ca, &certificate)?;
    }
    if certificate.is_empty() && key.is_empty() {
        config["ForceRotate"] = (config["ForceRotate"].as_u64().unwrap_or(0) + 1).into();
    }
    config["SigningCACert"] = certificate.into();
    config["SigningCAKey"] = key.into();
    client.post(&format!("/swarm/update?version={version}"), &swarm["Spec"]).await?;
    if ca.detach {
        return Ok(());
    }
    show(&wait(client, ca.quiet).await?)
}

fn show(swarm: &Value) -> CliResult<()> {
    match at(swarm, "/TLSInfo/TrustRoot").trim() {
        "" => Err(CliError::usage("No CA information available")),
        root => {
            println!("{root}");
            Ok(())
        }
    }
}

/// Waits until every node's certificate and trust are those of the new root; then gives the cluster.
async fn wait(client: &Client, quiet: bool) -> CliResult<Value> {
    let mut shown = String::new();
    loop {
        let swarm: Value = client.get("/swarm").await?;
        let nodes: Vec<Value> = client.get("/nodes").await?;
        let progress = Progress::of(&swarm, &nodes);
        let line = progress.line();
        if !quiet && line != shown && std::io::stderr().is_terminal() {
            eprintln!("{line}");
            shown = line;
        }
        if progress.done() {
            return Ok(swarm);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How far a rotation is, by Docker's rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Progress {
    rotating: bool,
    nodes: usize,
    certificates: usize,
    roots: usize,
}

impl Progress {
    fn of(swarm: &Value, nodes: &[Value]) -> Progress {
        let wanted = &swarm["TLSInfo"];
        let same = |node: &Value, field: &str| {
            let told = &node["Description"]["TLSInfo"][field];
            !told.is_null() && *told == wanted[field]
        };
        let issuer = ["CertIssuerPublicKey", "CertIssuerSubject"];
        let certified = nodes.iter().filter(|node| issuer.iter().all(|field| same(node, field)));
        Progress {
            rotating: swarm["RootRotationInProgress"].as_bool() == Some(true),
            nodes: nodes.len(),
            certificates: certified.count(),
            roots: nodes.iter().filter(|node| same(node, "TrustRoot")).count(),
        }
    }

    fn done(self) -> bool {
        !self.rotating && self.certificates == self.nodes && self.roots == self.nodes
    }

    fn line(self) -> String {
        let Progress { nodes, certificates, .. } = self;
        // While certificates are behind, no root counts as rotated.
        let roots = if self.rotating || certificates < nodes { 0 } else { self.roots };
        format!(
            "rotated TLS certificates: {certificates}/{nodes} nodes, rotated CA certificates: \
             {roots}/{nodes} nodes"
        )
    }
}

fn read(file: &Path) -> CliResult<String> {
    let name = file.display();
    let length = fs::metadata(file).map_err(|e| CliError::io(format!("open {name}"), e))?.len();
    if length > MAX_FILE {
        return Err(CliError::usage(format!("{name} is too long for a PEM file")));
    }
    fs::read_to_string(file).map_err(|e| CliError::io(format!("open {name}"), e))
}

/// The values of `--external-ca` as the API takes them: `protocol=cfssl,url=…[,cacert=FILE][,OPTION=…]`.
/// One that names no certificate is the CA of `certificate`, if that is given.
pub(crate) fn external(values: &[String], certificate: &str) -> CliResult<Value> {
    let all = values.iter().map(|value| one(value, certificate));
    Ok(all.collect::<CliResult<Vec<Value>>>()?.into())
}

fn one(value: &str, certificate: &str) -> CliResult<Value> {
    let usage = |text: &str| CliError::usage(text.to_owned());
    let mut ca = json!({ "Options": {} });
    for field in value.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            let text = format!("invalid field '{field}' must be a key=value pair");
            return Err(CliError::usage(text));
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "protocol" if value.eq_ignore_ascii_case("cfssl") => ca["Protocol"] = "cfssl".into(),
            "protocol" => {
                return Err(CliError::usage(format!("unrecognized external CA protocol {value}")));
            }
            "url" => ca["URL"] = value.into(),
            "cacert" => ca["CACert"] = read(Path::new(value))?.into(),
            option => ca["Options"][option] = value.into(),
        }
    }
    if ca["Protocol"].is_null() {
        return Err(usage("the external-ca option needs a protocol= parameter"));
    }
    if ca["URL"].is_null() {
        return Err(usage("the external-ca option needs a url= parameter"));
    }
    if ca["CACert"].is_null() && !certificate.is_empty() {
        ca["CACert"] = certificate.into();
    }
    Ok(ca)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_cas_are_read_as_docker_reads_them() {
        let good = "protocol=CFSSL,url=https://ca:8888/sign,depth=2".to_owned();
        let read = external(&[good], "PEM").unwrap();
        let expected = json!([{ "Protocol": "cfssl", "URL": "https://ca:8888/sign", "CACert": "PEM",
            "Options": { "depth": "2" } }]);
        assert_eq!(read, expected);
        for (value, words) in [
            ("", "must be a key=value pair"),
            ("url=https://ca", "needs a protocol= parameter"),
            ("protocol=cfssl", "needs a url= parameter"),
            ("protocol=acme,url=https://ca", "unrecognized external CA protocol acme"),
            ("protocol=cfssl,url=https://ca,cacert=/none", "open /none"),
        ] {
            let error = external(&[value.to_owned()], "").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_rotation_is_over_when_every_node_has_both_and_the_old_root_is_gone() {
        let tls = |root: &str, key: &str| {
            json!({ "TrustRoot": root, "CertIssuerPublicKey": key,
            "CertIssuerSubject": "s" })
        };
        let node = |root: &str, key: &str| json!({ "Description": { "TLSInfo": tls(root, key) } });
        let swarm = |rotating: bool| json!({ "RootRotationInProgress": rotating, "TLSInfo": tls("new", "k") });
        let untold = json!({ "Description": {} });
        let table = [
            (
                false,
                vec![node("new", "k"), node("new", "k")],
                true,
                "2/2 nodes, rotated CA certificates: 2/2",
            ),
            (true, vec![node("new", "k")], false, "1/1 nodes, rotated CA certificates: 0/1"),
            (
                false,
                vec![node("old", "k"), node("new", "k")],
                false,
                "2/2 nodes, rotated CA certificates: 1/2",
            ),
            (
                false,
                vec![node("new", "j"), node("new", "k")],
                false,
                "1/2 nodes, rotated CA certificates: 0/2",
            ),
            (false, vec![untold], false, "0/1 nodes, rotated CA certificates: 0/1"),
        ];
        for (rotating, nodes, done, line) in table {
            let progress = Progress::of(&swarm(rotating), &nodes);
            assert_eq!(progress.done(), done, "{progress:?}");
            assert!(progress.line().contains(line), "{}", progress.line());
        }
    }
}
