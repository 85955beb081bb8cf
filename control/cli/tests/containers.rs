//! Images and containers by this command line: load, images, ps, logs, exec, inspect. This program is
//! also the shim of the container it starts, hence a main of its own.
#![expect(clippy::unwrap_used, reason = "a test, though with a main of its own")]
use shoal_api::{
    memory::MemorySwarm,
    testserver::{TestServer, run},
};
use shoal_containers::{ContainerSpec, new_id};
use shoal_images::testimage::busybox_archive;
use std::{
    path::Path,
    process::{Command, ExitCode},
};

const BUSYBOX: &str = "/bin/busybox";
const NAME: &str = "web.1.task";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|a| a.to_str()) {
        Some("shim") => return shoal_containers::shim_main(args),
        Some("shim-exec") => return shoal_containers::exec_main(args),
        // What test runners ask a program for; the tests here are one sequence.
        Some("--list") => {
            println!("commands_work_on_images_and_containers: test");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    commands_work_on_images_and_containers();
    println!("test commands_work_on_images_and_containers ... ok");
    ExitCode::SUCCESS
}

fn shoal(s: &TestServer, args: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-cli-test"));
    command.env("SHOAL_HOST", s.host()).args(args);
    let out = run(command, input).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

fn commands_work_on_images_and_containers() {
    assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: apt-get install busybox-static");
    let s = &TestServer::start(MemorySwarm::three_nodes()).unwrap();
    let cmd = ["sh", "-c", "echo hello; echo oops >&2; exec sleep 1000"];
    let archive = busybox_archive(Path::new(BUSYBOX), "busy:1", &cmd, &[]).unwrap();
    let loaded = shoal(s, &["load"], &archive);
    assert_eq!(loaded, (0, "Loaded image: busy:1\n".into(), String::new()));
    let (code, _, err) = shoal(s, &["image", "load"], &archive[..archive.len() / 2]);
    assert!(code == 1 && err.contains("invalid image archive"), "{code} {err}");
    let (code, _, err) = shoal(s, &["load", "-i", "/nonexistent.tar"], b"");
    assert!(code == 1 && err.contains("/nonexistent.tar"), "{code} {err}");
    same(s, &["images"]);
    same(s, &["images", "busy"]);

    let spec = ContainerSpec {
        id: new_id(),
        name: NAME.to_owned(),
        image: "busy:1".to_owned(),
        ..ContainerSpec::default()
    };
    s.handle.block_on(async {
        s.ctx.runtime.create(spec).await.unwrap();
        s.ctx.runtime.start(NAME).await.unwrap();
    });
    same(s, &["ps", "-q"]);
    same(s, &["ps", "-q", "--no-trunc", "-f", "name=web"]);
    same(s, &["logs", NAME]);
    same(s, &["logs", "-t", "-n", "1", NAME]);
    same(s, &["inspect", "--type", "container", NAME]);
    execs(s);
    s.handle.block_on(s.ctx.runtime.remove(NAME, true)).unwrap();
}

fn execs(s: &TestServer) {
    for args in [
        &["exec", NAME, "echo", "hi"][..],
        &["exec", NAME, "sh", "-c", "echo a; echo b >&2; exit 3"],
        &["exec", "-u", "app", "-w", "/tmp", "-e", "A=b", NAME, "sh", "-c", "id -u; pwd; echo $A"],
        &["exec", "-t", NAME, "tty"],
        &["exec", NAME, "nonsense"],
        &["exec", "-d", NAME, "true"],
        &["exec", "nobody", "true"],
    ] {
        same(s, args);
    }
    // Half-close: cat ends because its input ends.
    let input = "line\n".repeat(100_000);
    let (code, out, err) = shoal(s, &["exec", "-i", NAME, "cat"], input.as_bytes());
    assert_eq!(code, 0, "{err}");
    assert!(out == input, "got {} of {} bytes back", out.len(), input.len());
    // With a terminal of its own, made by script(1): the size is passed on.
    let inner = format!(
        "stty rows 33 cols 77; {} exec -it {NAME} sh -c 'until test \"$(stty size)\" = \"33 77\"; do sleep 0.05; done; tty'",
        env!("CARGO_BIN_EXE_shoal-cli-test")
    );
    let mut command = Command::new("script");
    command.env("SHOAL_HOST", s.host()).args(["-qec", &inner, "/dev/null"]);
    let out = run(command, b"").unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("/dev/pts/"), "{}: {text}", out.status);
    let (code, _, err) = shoal(s, &["exec", "-it", NAME, "sh"], b"");
    assert!(code == 1 && err.contains("the input device is not a TTY"), "{code} {err}");
}

/// `docker` answers the same.
#[track_caller]
fn same(s: &TestServer, args: &[&str]) {
    let out = s.docker(args).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let theirs = (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr));
    let (ours, theirs) = (shoal(s, args, b""), theirs);
    assert_eq!((ours.0, &ours.1), (theirs.0, &theirs.1), "{args:?}\n{}\n{}", ours.2, theirs.2);
    let trim = |t: &str| t.trim_end().trim_end_matches("exit status 1").trim().to_owned();
    assert_eq!(trim(&ours.2), trim(&theirs.2), "{args:?}");
}
