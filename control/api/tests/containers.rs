//! Images and containers through the real `docker`: load, images, ps, logs, exec, inspect, stop, rm.
//! This program is also the shim of the container it starts, hence a main of its own.
#![expect(clippy::unwrap_used, reason = "a test, though with a main of its own")]
use shoal_api::{memory::MemorySwarm, testserver::TestServer};
use shoal_containers::{ContainerSpec, new_id};
use shoal_images::testimage::busybox_archive;
use std::{collections::BTreeMap, path::Path, process::ExitCode};

const BUSYBOX: &str = "/bin/busybox";
const NAME: &str = "web.1.task";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|a| a.to_str()) {
        Some("shim") => return shoal_containers::shim_main(args),
        Some("shim-exec") => return shoal_containers::exec_main(args),
        // What test runners ask a program for; the tests here are one sequence.
        Some("--list") => {
            println!("docker_works_on_images_and_containers: test");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    docker_works_on_images_and_containers();
    println!("test docker_works_on_images_and_containers ... ok");
    ExitCode::SUCCESS
}

fn docker_works_on_images_and_containers() {
    let server = TestServer::start(MemorySwarm::three_nodes()).unwrap();
    assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: apt-get install busybox-static");
    images(&server);
    start(&server);
    containers(&server);
    execs(&server);
    the_end(&server);
}

fn docker(s: &TestServer, args: &[&str], input: &[u8]) -> (i32, String, String) {
    let out = s.docker_with(args, input).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

fn ok(s: &TestServer, args: &[&str]) -> String {
    let (code, out, err) = docker(s, args, b"");
    assert_eq!(code, 0, "docker {args:?}\n{out}{err}");
    out
}

fn images(s: &TestServer) {
    let cmd = ["sh", "-c", "echo hello; echo oops >&2; exec sleep 1000"];
    let archive = busybox_archive(Path::new(BUSYBOX), "busy:1", &cmd, &[]).unwrap();
    let (code, out, err) = docker(s, &["load"], &archive);
    assert_eq!((code, out.as_str()), (0, "Loaded image: busy:1\n"), "{err}");
    let list = ok(s, &["images"]);
    assert!(list.contains("busy         1         "), "{list}");
    assert_eq!(ok(s, &["images", "-q", "other"]), "");
    assert_eq!(
        ok(s, &["image", "inspect", "-f", "{{.Os}} {{index .Config.Cmd 0}}", "busy:1"]),
        "linux sh\n"
    );
    ok(s, &["tag", "busy:1", "me/busy:2"]);
    assert!(ok(s, &["rmi", "me/busy:2"]).contains("Untagged: me/busy:2"));
    let (code, _, err) = docker(s, &["load"], &archive[..archive.len() / 2]);
    assert_eq!(code, 1);
    assert!(err.contains("invalid image archive"), "{err}");
    assert!(docker(s, &["image", "inspect", "none"], b"").2.contains("No such image: none"));
}

fn start(s: &TestServer) {
    let spec = ContainerSpec {
        id: new_id(),
        name: NAME.to_owned(),
        image: "busy:1".to_owned(),
        labels: BTreeMap::from([("com.docker.swarm.service.name".to_owned(), "web".to_owned())]),
        ..ContainerSpec::default()
    };
    s.handle.block_on(async {
        s.ctx.runtime.create(spec).await.unwrap();
        s.ctx.runtime.start(NAME).await.unwrap();
    });
}

fn containers(s: &TestServer) {
    let ps = ok(s, &["ps", "--no-trunc"]);
    assert!(ps.contains(NAME) && ps.contains("busy:1") && ps.contains("Up "), "{ps}");
    assert_eq!(
        ok(s, &["ps", "-q", "-f", "label=com.docker.swarm.service.name=web"]).lines().count(),
        1
    );
    assert_eq!(ok(s, &["ps", "-q", "-f", "name=other"]), "");
    assert_eq!(
        ok(s, &["inspect", "-f", "{{.State.Status}} {{.Name}}", NAME]),
        format!("running /{NAME}\n")
    );
    let (code, out, err) = docker(s, &["logs", NAME], b"");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "hello\n", "oops\n"));
    assert!(ok(s, &["logs", "-t", "--tail", "2", NAME]).contains("Z hello"));
    assert!(ok(s, &["info"]).contains("Running: 1"));
}

fn execs(s: &TestServer) {
    assert_eq!(ok(s, &["exec", NAME, "echo", "hi"]), "hi\n");
    let (code, out, err) =
        docker(s, &["exec", NAME, "sh", "-c", "echo a; echo b >&2; exit 3"], b"");
    assert_eq!((code, out.as_str(), err.as_str()), (3, "a\n", "b\n"));
    // Half-close: cat ends because its input ends.
    let input = "line\n".repeat(100_000);
    let (code, out, err) = docker(s, &["exec", "-i", NAME, "cat"], input.as_bytes());
    assert_eq!(code, 0, "{err}");
    assert!(out == input, "got {} of {} bytes back", out.len(), input.len());
    let who =
        ["exec", "-u", "app", "-w", "/tmp", "-e", "A=b", NAME, "sh", "-c", "id -u; pwd; echo $A"];
    assert_eq!(ok(s, &who), "1000\n/tmp\nb\n");
    assert_eq!(ok(s, &["exec", "-t", NAME, "tty"]), "/dev/pts/0\r\n");
    let (code, out, err) = docker(s, &["exec", NAME, "nonsense"], b"");
    assert_eq!(code, 127, "{out}{err}");
    assert!(format!("{out}{err}").contains("nonsense"), "{out}{err}");
    ok(s, &["exec", "-d", NAME, "touch", "/tmp/detached"]);
    ok(s, &["exec", NAME, "sh", "-c", "until test -e /tmp/detached; do sleep 0.05; done"]);
    let (code, _, err) = docker(s, &["exec", "nobody", "true"], b"");
    assert_eq!(code, 1);
    assert!(err.contains("No such container: nobody"), "{err}");
}

fn the_end(s: &TestServer) {
    let (code, _, err) = docker(s, &["rm", NAME], b"");
    assert_eq!(code, 1);
    assert!(err.contains("stop the container before removing"), "{err}");
    ok(s, &["kill", NAME]);
    assert_eq!(ok(s, &["wait", NAME]), "137\n");
    assert!(ok(s, &["ps", "-a"]).contains("Exited (137)"));
    let (code, _, err) = docker(s, &["exec", NAME, "true"], b"");
    assert_eq!(code, 1);
    assert!(err.contains("is not running"), "{err}");
    ok(s, &["rm", NAME]);
    assert_eq!(ok(s, &["ps", "-aq"]), "");
}
