//! Every check of the project, one after another, and their sum.

use crate::{docker, object, process, setup, workspace};
use anyhow::{Context as _, bail};
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// The crate of the multi-node tests, which run last.
const MULTI_NODE: &str = "shoal-tests";

/// What has been counted so far.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    /// One line for each part that did not run, with the reason.
    skipped: Vec<String>,
}

/// A test program that cargo built.
pub(crate) struct TestProgram {
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    /// Tests expect to run in the folder of their package.
    pub(crate) folder: PathBuf,
    multi_node: bool,
}

pub(crate) fn run(filter: Option<&str>) -> anyhow::Result<()> {
    let toolchain = setup::run(setup::For::Tests)?;
    object::build(&toolchain)?;
    let docker = docker::client()?;
    let mut tally = Tally::default();
    match filter {
        None => static_checks(&mut tally)?,
        Some(_) => tally.skipped.push("format, lints, dependencies: --filter is given".to_owned()),
    }
    let mut programs = build_tests(&["--workspace", "--all-targets"])?;
    programs.sort_by_key(|p| p.multi_node);
    let skips = env::temp_dir().join(format!("shoal-skips-{}", std::process::id()));
    let mut environment = vec![
        ("PATH", env::var("PATH").unwrap_or_default()),
        ("SHOAL_DOCKER", docker.display().to_string()),
        ("SHOAL_SKIPS", skips.display().to_string()),
        ("RUST_BACKTRACE", env::var("RUST_BACKTRACE").unwrap_or_else(|_| "1".to_owned())),
    ];
    if let Some(cfssl) = docker::cfssl() {
        environment.push(("SHOAL_CFSSL", cfssl.display().to_string()));
    }
    if let Some(seed) = env::var("SHOAL_SEED").ok().or_else(seed_of_commit) {
        environment.push(("SHOAL_SEED", seed));
    }
    for program in &programs {
        heading(&program.name);
        let mut command = process::as_root(&program.executable, &environment)?;
        command.current_dir(&program.folder).args(filter);
        if program.multi_node {
            // They share a cluster.
            command.arg("--test-threads=1");
        }
        stream(&mut command, &program.name, &mut tally)?;
    }
    if filter.is_none() {
        heading("examples in the documentation");
        let mut cargo = cargo(&["test", "--quiet", "--workspace", "--doc"]);
        stream(&mut cargo, "examples in the documentation", &mut tally)?;
    }
    tally.skipped.extend(fs::read_to_string(&skips).unwrap_or_default().lines().map(str::to_owned));
    // It is root's where tests run through sudo, in a folder with the sticky bit: best effort.
    fs::remove_file(&skips).ok();
    println!();
    for line in &tally.skipped {
        println!("not run: {line}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 { bail!("{} failed", tally.failed) } else { Ok(()) }
}

/// Where the simulator's seeds begin: others for each commit, and the same whenever it is tested. `None`
/// where there is no repository, as in an archive of the source.
fn seed_of_commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(workspace::root());
    let output = git.output().ok().filter(|output| output.status.success())?;
    let commit = String::from_utf8(output.stdout).ok()?;
    // Forty bits: the highest three of a seed have a meaning.
    Some(u64::from_str_radix(commit.get(..10)?, 16).ok()?.to_string())
}

/// Checks that need no test program. Each counts as one.
fn static_checks(tally: &mut Tally) -> anyhow::Result<()> {
    check("format", &mut cargo(&["fmt", "--all", "--check"]), tally)?;
    let mut kernel_side = cargo(&["fmt", "--check"]);
    kernel_side.current_dir(workspace::root().join("ebpf/programs"));
    check("format of the eBPF programs", &mut kernel_side, tally)?;
    let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    check("lints", &mut cargo(&lints), tally)?;
    tally.skipped.push(
        "lints of the eBPF programs: the toolchains that can build them come without clippy"
            .to_owned(),
    );
    let deny = ["deny", "--log-level", "error", "check", "licenses", "bans", "sources"];
    check("licences and sources of dependencies", &mut cargo(&deny), tally)?;
    if advisories_are_here() {
        let deny = ["deny", "--offline", "--log-level", "error", "check", "advisories"];
        check("security advisories", &mut cargo(&deny), tally)?;
    } else {
        tally.skipped.push(
            "security advisories: their database is not here; `cargo deny fetch db` fetches it"
                .to_owned(),
        );
    }
    // Called by itself: as cargo's subcommand it mistakes its arguments when cargo started us, too.
    let mut machete = Command::new(workspace::tools()?.join("bin/cargo-machete"));
    machete.arg("--skip-target-dir").current_dir(workspace::root());
    machete.env_remove("CARGO").env_remove("CARGO_PKG_NAME");
    check("unused dependencies", &mut machete, tally)
}

/// Whether cargo-deny's database was fetched before: tests fetch nothing by themselves.
fn advisories_are_here() -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    let Some(databases) = home.and_then(|home| fs::read_dir(home.join("advisory-dbs")).ok()) else {
        return false;
    };
    databases.flatten().any(|database| database.path().join(".git").exists())
}

fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace::root()).args(args);
    // cargo finds `deny` and `machete` there.
    cargo.env("PATH", workspace::path_with_tools().unwrap_or_default());
    cargo
}

fn heading(what: &str) {
    println!("\n── {what}");
}

fn check(what: &str, command: &mut Command, tally: &mut Tally) -> anyhow::Result<()> {
    heading(what);
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot start the check: {what}"))?;
    let seconds = start.elapsed().as_secs_f32();
    if status.success() {
        tally.passed += 1;
        println!("ok ({seconds:.1} s)");
    } else {
        tally.failed += 1;
        println!("FAILED: {what} ({seconds:.1} s)");
    }
    Ok(())
}

/// Builds what cargo is told to at once, so that each dependency is compiled once.
pub(crate) fn build_tests(what: &[&str]) -> anyhow::Result<Vec<TestProgram>> {
    heading("building");
    let mut cargo = cargo(&["build"]);
    cargo.args(what).args(["--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let mut programs = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let message: serde_json::Value = serde_json::from_str(&line?)?;
        programs.extend(test_program(&message));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the workspace does not build ({status})");
    }
    Ok(programs)
}

/// The test program that a message of cargo's announces, if it does.
fn test_program(message: &serde_json::Value) -> Option<TestProgram> {
    let text = |pointer| message.pointer(pointer).and_then(serde_json::Value::as_str);
    if message.pointer("/profile/test")? != true {
        return None;
    }
    let executable = PathBuf::from(text("/executable")?);
    let folder = Path::new(text("/manifest_path")?).parent()?.to_owned();
    let (target, kind) = (text("/target/name")?, text("/target/kind/0")?);
    let multi_node = kind == "test" && text("/package_id")?.contains(MULTI_NODE);
    let short = folder.strip_prefix(workspace::root()).unwrap_or(&folder).display().to_string();
    Some(TestProgram {
        name: format!("{short}: {target} ({kind})"),
        executable,
        folder,
        multi_node,
    })
}

/// Runs tests, shows what they print and adds up their `test result:` lines.
fn stream(command: &mut Command, name: &str, tally: &mut Tally) -> anyhow::Result<()> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
    let failed_before = tally.failed;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = TestResult::parse(&line) {
            tally.passed += result.passed;
            tally.failed += result.failed;
            if result.ignored > 0 {
                tally.skipped.push(format!("{name}: {} marked #[ignore]", result.ignored));
            }
        }
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == failed_before {
        // It died before it could count.
        tally.failed += 1;
        println!("FAILED: {name} ({status})");
    }
    Ok(())
}

/// A line like `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out`.
#[derive(Debug, PartialEq, Eq)]
struct TestResult {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl TestResult {
    fn parse(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |what: &str| {
            let part = counts.split("; ").find(|part| part.ends_with(what))?;
            part.split(' ').next()?.parse().ok()
        };
        Some(Self {
            passed: count(" passed")?,
            failed: count(" failed")?,
            ignored: count(" ignored")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered \
                    out; finished in 0.05s";
        let expected = TestResult { passed: 12, failed: 3, ignored: 1 };
        assert_eq!(TestResult::parse(line), Some(expected));
    }

    #[test]
    fn what_a_test_prints_is_not_counted() {
        assert_eq!(TestResult::parse("test foo::bar ... ok"), None);
        assert_eq!(TestResult::parse("test result: something else"), None);
    }

    #[test]
    fn an_ordinary_program_is_not_taken_for_a_test() {
        let message = serde_json::json!({
            "profile": {"test": false}, "executable": "/t/shoal", "manifest_path": "/c/Cargo.toml",
            "target": {"name": "shoal", "kind": ["bin"]}, "package_id": "path+file:///c#shoal"
        });
        assert!(test_program(&message).is_none());
    }
}
