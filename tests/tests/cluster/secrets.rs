//! Secrets and configs: files of the tasks that use them, and known to nobody else.

use super::fixture::{MEMBERS, Scene, cluster};
use anyhow::{Context as _, ensure};
use shoal_tests::{Cluster, Node, RunningTask, WEB_IMAGE, patiently, wait_for};
use std::{fs, path::PathBuf, process::Command};

/// Secrets and configs of one test; they go with it.
struct Kept<'a> {
    cluster: &'a Cluster,
    made: Vec<(&'static str, String)>,
}

impl<'a> Kept<'a> {
    fn on(cluster: &'a Cluster) -> Self {
        Self { cluster, made: Vec::new() }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.cluster.folder().join(name);
        fs::write(&file, content).unwrap();
        file
    }

    fn make(&mut self, kind: &'static str, name: &str, content: &str, options: &[&str]) {
        self.made.push((kind, name.to_owned()));
        let file = self.file(name, content);
        let args = [&[kind, "create"], options, &[name, file.to_str().unwrap()]].concat();
        self.cluster.node(0).docker(&args).unwrap().ok().unwrap();
        // What is looked for later is not to be found here.
        fs::remove_file(file).unwrap();
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        // Best effort: what stays has names that no other test uses.
        for (kind, name) in self.made.drain(..) {
            self.cluster.node(0).docker(&[kind, "rm", &name]).ok();
        }
    }
}

fn shown(cluster: &Cluster, task: &RunningTask, script: &str) -> String {
    cluster.exec(task, script).unwrap().ok().unwrap()
}

/// Files below a folder that hold one of the texts, as the node's daemon sees it.
fn holding(node: &Node, folder: PathBuf, texts: &[&str]) -> String {
    let root = format!("/proc/{}/root", node.daemon_pid().unwrap());
    let folder = PathBuf::from(root + folder.to_str().unwrap());
    let mut grep = Command::new("grep");
    // What is mounted below, containers' own file systems too, is looked through as well.
    grep.args(["-rlaF", "--devices=skip"]);
    for text in texts {
        grep.args(["-e", text]);
    }
    let found = grep.arg(folder).output().unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

/// Mount points below a node's run-time folder as its daemon sees them, those of tmpfs.
fn tmpfs(node: &Node) -> anyhow::Result<Vec<String>> {
    let pid = node.daemon_pid().context("no daemon")?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts"))?;
    let root = node.exec_root();
    let own = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        (kind == "tmpfs" && at.starts_with(root.to_str()?) && at != root.to_str()?)
            .then(|| at.to_owned())
    });
    Ok(own.collect())
}

#[test]
fn secrets_are_files_of_the_tasks_that_use_them_and_are_known_to_no_other_node() {
    let cluster = cluster();
    let mut kept = Kept::on(&cluster);
    let mut scene = Scene::on(&cluster);
    let word = "open-sesame-7341";
    kept.make("secret", "sec-key", word, &[]);
    kept.make("config", "sec-site", "site of sec-web\n", &["--label", "a=b"]);
    let template =
        "{{.Service.Name}} {{.Task.Slot}} {{.Node.Hostname}} {{secret \"key\"}} {{env \"COLOUR\"}}";
    kept.make("config", "sec-page", template, &["--template-driver", "golang"]);
    let before: Vec<_> = cluster.nodes().iter().map(|node| tmpfs(node).unwrap()).collect();
    let options = [
        "--replicas-max-per-node",
        "1",
        "--secret",
        "source=sec-key,target=key,uid=5,gid=6,mode=0400",
        "--config",
        "source=sec-site,target=/etc/passwd",
        "--config",
        "sec-page",
        "--env",
        "COLOUR=red",
        "--env",
        "SLOT={{.Task.Slot}}",
        "--hostname",
        "{{.Service.Name}}-{{.Task.Slot}}",
    ];
    let tasks = scene.service("sec-web", 2, &options, &[]);
    for task in &tasks {
        assert_eq!(shown(&cluster, task, "cat /run/secrets/key"), word);
        assert_eq!(shown(&cluster, task, "stat -c '%a %u %g' /run/secrets/key"), "400 5 6");
        assert_eq!(shown(&cluster, task, "cat /etc/passwd"), "site of sec-web");
        assert_eq!(shown(&cluster, task, "stat -c %a /etc/passwd"), "444");
        let refused = cluster.exec(task, "echo x > /run/secrets/key").unwrap().message().unwrap();
        assert!(refused.contains("Read-only file system"), "{refused}");
        let slot = shown(&cluster, task, "echo $SLOT");
        let node = cluster.node(task.node).name();
        let page = format!("sec-web {slot} {node} {word} red");
        assert_eq!(shown(&cluster, task, "cat /sec-page"), page);
        assert_eq!(shown(&cluster, task, "hostname"), format!("sec-web-{slot}"));
    }
    // Nowhere on disk, neither as it is nor as it is sent; and on no node without a task that uses it.
    for (index, node) in cluster.nodes().iter().enumerate() {
        let texts = [word, "b3Blbi1zZXNhbWUtNzM0M"];
        assert_eq!(holding(node, node.data_root(), &texts), "", "{}", node.name());
        let used = tasks.iter().any(|task| task.node == index);
        let there = holding(node, node.exec_root(), &texts);
        assert_eq!(!there.is_empty(), used, "{}: {there}", node.name());
    }
    assert!(!scene.docker(&["secret", "inspect", "sec-key"]).contains("Data"));
    // A daemon that starts again takes nothing away.
    let task = &tasks[0];
    cluster.node(task.node).restart_daemon().unwrap();
    assert_eq!(shown(&cluster, task, "cat /run/secrets/key"), word);

    // Rotated: another secret in the place of the first, which goes then and not before.
    let refused = cluster.node(0).docker(&["secret", "rm", "sec-key"]).unwrap().message().unwrap();
    let text = "secret 'sec-key' is in use by the following service: sec-web";
    assert!(refused.contains(text), "{refused}");
    kept.make("secret", "sec-key2", "another-word-7342", &[]);
    let add = "source=sec-key2,target=key";
    scene.docker(&[
        "service",
        "update",
        "-q",
        "--secret-rm",
        "sec-key",
        "--secret-add",
        add,
        "sec-web",
    ]);
    for task in cluster.wait_for_tasks("sec-web", 2, patiently()).unwrap() {
        assert_eq!(shown(&cluster, &task, "cat /run/secrets/key"), "another-word-7342");
    }
    scene.docker(&["secret", "rm", "sec-key"]);
    let back = cluster.node(0).docker(&["service", "rollback", "-q", "sec-web"]).unwrap();
    let refused = back.message().unwrap();
    assert!(refused.contains("secret not found: sec-key"), "{refused}");

    // With the service, nothing of it is left.
    drop(scene);
    wait_for("the nodes to forget the secret", patiently(), || {
        for (node, before) in cluster.nodes().iter().zip(&before).take(MEMBERS) {
            // Another test's may have been going when this one began.
            let left = tmpfs(node)?.into_iter().filter(|at| !before.contains(at));
            let left: Vec<String> = left.collect();
            ensure!(left.is_empty(), "{}: {left:?}", node.name());
            let there = holding(node, node.exec_root(), &["another-word-7342"]);
            ensure!(there.is_empty(), "{}: {there}", node.name());
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_stack_brings_its_secrets_and_configs_and_takes_them_along() {
    let cluster = cluster();
    let kept = Kept::on(&cluster);
    let secret = kept.file("sec-stack-key", "stacked-7343");
    let config = kept.file("sec-stack-site", "site of a stack");
    let compose = format!(
        "services:\n  app:\n    image: {WEB_IMAGE}\n    secrets: [key]\n    configs:\n      \
         - source: site\n        target: /etc/site\n        mode: 0440\nsecrets:\n  key:\n    file: {}\n\
         configs:\n  site:\n    file: {}\n",
        secret.display(),
        config.display()
    );
    let compose = kept.file("sec-stack.yaml", &compose);
    let mut scene = Scene::on(&cluster);
    scene.mine("secstack_app");
    let deploy = ["stack", "deploy", "--detach=true", "-c", compose.to_str().unwrap(), "secstack"];
    scene.docker(&deploy);
    let task = cluster.wait_for_tasks("secstack_app", 1, patiently()).unwrap().remove(0);
    assert_eq!(shown(&cluster, &task, "cat /run/secrets/key"), "stacked-7343");
    assert_eq!(
        shown(&cluster, &task, "cat /etc/site; stat -c ' %a' /etc/site"),
        "site of a stack 440"
    );
    // Again, and nothing changes; with another content it is refused.
    scene.docker(&deploy);
    assert_eq!(cluster.wait_for_tasks("secstack_app", 1, patiently()).unwrap(), [task]);
    fs::write(&config, "another").unwrap();
    let refused = cluster.node(0).docker(&deploy).unwrap().message().unwrap();
    assert!(refused.contains("only updates to Labels are allowed"), "{refused}");
    scene.docker(&["stack", "rm", "secstack"]);
    for kind in ["secret", "config"] {
        assert!(
            !scene.docker(&[kind, "ls", "--format", "{{.Name}}"]).contains("secstack"),
            "{kind}"
        );
    }
}
