//! Managers that lock themselves, whose unlock key is rotated while they are killed one after another. On
//! the cluster of [`super::managers`], which each test leaves whole and unlocked.

use super::managers::{MANAGERS, WORKER, Writes, cluster, statuses, whole};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use shoal_tests::{Cluster, Node, patiently, wait_for};
use std::{
    fs::File,
    ops::RangeInclusive,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// An unlock key of nobody.
const STRANGER: &str = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What a manager logs when it has taken another lock.
const TAKEN: &str = "the manager's lock has changed";

/// What the API says to a key that does not fit; Docker's words.
const REFUSED: &str = "swarm could not be unlocked: invalid key provided";

/// The unlock keys a cluster has had, the oldest first, while it locks its managers.
struct Keys<'a> {
    cluster: &'a Cluster,
    all: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl<'a> Keys<'a> {
    /// Switches the lock on.
    fn begin(cluster: &'a Cluster) -> Self {
        let keys = Self { cluster, all: Mutex::default(), stop: AtomicBool::new(false) };
        let before: Vec<usize> = (0..MANAGERS).map(|index| taken(cluster.node(index))).collect();
        let update = ["swarm", "update", "--autolock=true"];
        let said = cluster.node(0).docker(&update).unwrap().ok().unwrap();
        keys.note(0).unwrap();
        assert!(said.contains(&keys.of(0)), "{said}");
        for (index, before) in before.into_iter().enumerate() {
            keys.await_taken(index, before).unwrap();
        }
        keys
    }

    /// Adds the key in force, as a manager shows it, unless it is known.
    fn note(&self, by: usize) -> anyhow::Result<()> {
        let key = self.cluster.node(by).docker(&["swarm", "unlock-key", "-q"])?.ok()?;
        ensure!(key.starts_with("SWMKEY-1-"), "{key:?}");
        let mut all = self.all.lock().unwrap();
        if all.last() != Some(&key) {
            all.push(key);
        }
        Ok(())
    }

    fn rotate(&self, by: usize) -> anyhow::Result<()> {
        let rotate = ["swarm", "unlock-key", "--rotate", "-q"];
        let key = self.cluster.node(by).docker(&rotate)?.ok()?;
        self.all.lock().unwrap().push(key);
        Ok(())
    }

    /// Rotates the key and waits until these managers have taken it, as they had the one before.
    fn rotate_all(&self, among: &[usize]) -> anyhow::Result<()> {
        // A leader may just be elected.
        wait_for("the swarm to answer", patiently(), || self.note(among[0]))?;
        let before: Vec<usize> =
            among.iter().map(|index| taken(self.cluster.node(*index))).collect();
        self.rotate(among[0])?;
        among.iter().zip(before).try_for_each(|(index, before)| self.await_taken(*index, before))
    }

    /// Position of the newest.
    fn newest(&self) -> usize {
        self.all.lock().unwrap().len() - 1
    }

    fn of(&self, position: usize) -> String {
        self.all.lock().unwrap()[position].clone()
    }

    /// Waits until a manager has taken another lock than `before` times.
    fn await_taken(&self, index: usize, before: usize) -> anyhow::Result<()> {
        wait_for("the key to be taken", patiently(), || {
            ensure!(taken(self.cluster.node(index)) > before);
            Ok(())
        })
    }

    /// Rotates the key without a pause, by whichever manager answers, while `act` runs.
    fn rotating<R>(&self, act: impl FnOnce() -> anyhow::Result<R>) -> anyhow::Result<R> {
        thread::scope(|scope| {
            let rotating = scope.spawn(|| {
                for round in 0.. {
                    if self.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // It may have been rotated even if nobody said so: then that key must be known, too.
                    if self.rotate(round % MANAGERS).is_err() {
                        wait_for("the key in force", patiently(), || {
                            (0..MANAGERS).find_map(|by| self.note(by).ok()).context("nobody knows")
                        })?;
                    }
                    thread::sleep(Duration::from_millis(100));
                }
                anyhow::Ok(())
            });
            let result = act();
            self.stop.store(true, Ordering::Relaxed);
            rotating.join().map_err(|_| anyhow::anyhow!("the rotations panicked"))??;
            result
        })
    }

    /// Unlocks a manager with one of these keys, the oldest or the newest first; gives the position of the
    /// key that fitted. Every other one is refused in Docker's words.
    fn open(
        &self,
        index: usize,
        among: RangeInclusive<usize>,
        oldest_first: bool,
    ) -> anyhow::Result<usize> {
        let node = self.cluster.node(index);
        let mut positions: Vec<usize> = among.clone().collect();
        if !oldest_first {
            positions.reverse();
        }
        for position in positions {
            let (status, said) = unlock(node, &self.of(position))?;
            if status == 200 {
                return Ok(position);
            }
            ensure!(status == 400 && said.contains(REFUSED), "{status}: {said}");
        }
        anyhow::bail!("none of the keys {among:?} unlocks {}", node.name())
    }
}

impl Drop for Keys<'_> {
    /// A test that fails leaves the cluster unlocked for the next one.
    fn drop(&mut self) {
        for index in 0..MANAGERS {
            let node = self.cluster.node(index);
            if node.daemon_pid().is_none() {
                node.start_daemon().ok();
            }
            if state(node).is_ok_and(|state| state == "locked") {
                self.open(index, 0..=self.newest(), false).ok();
            }
        }
        self.cluster.node(0).docker(&["swarm", "update", "--autolock=false"]).ok();
    }
}

fn taken(node: &Node) -> usize {
    node.logs().matches(TAKEN).count()
}

fn state(node: &Node) -> anyhow::Result<String> {
    node.docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"])?.ok()
}

fn unlock(node: &Node, key: &str) -> anyhow::Result<(u16, String)> {
    let answer = node.api("POST", "/swarm/unlock", &json!({ "UnlockKey": key }).to_string())?;
    Ok((answer.status, answer.body))
}

/// The real client, which asks for the key.
fn type_key(cluster: &Cluster, node: &Node, key: &str) -> anyhow::Result<(bool, String)> {
    let typed = cluster.folder().join("typed-key");
    std::fs::write(&typed, format!("{key}\n"))?;
    let mut docker = node.docker_command();
    let output = docker.args(["swarm", "unlock"]).stdin(File::open(typed)?).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.success(), said))
}

/// Starts a manager's daemon, which then waits for its key.
fn start_locked(node: &Node) -> anyhow::Result<()> {
    node.start_daemon()?;
    let state = state(node)?;
    ensure!(state == "locked", "{} is {state}", node.name());
    Ok(())
}

/// Waits until another manager sees this one again.
fn back(cluster: &Cluster, index: usize) -> anyhow::Result<()> {
    wait_for("it to be back", patiently(), || {
        let seen = statuses(cluster.node((index + 1) % MANAGERS))?;
        let name = cluster.node(index).name();
        let own = seen.iter().find(|(n, _, _)| n == name).context("it is not listed")?;
        ensure!(own.1 == "Ready" && own.2 != "Unreachable", "{own:?}");
        statuses(cluster.node(index)).map(drop)
    })
}

/// Whether a manager's store and its node's key are sealed on disk.
fn sealed(node: &Node) -> anyhow::Result<(bool, bool)> {
    let swarm = node.data_root().join("swarm");
    let store: Value = serde_json::from_slice(&std::fs::read(swarm.join("raft/data.key"))?)?;
    let key = std::fs::read_to_string(swarm.join("certificates/swarm-node.key"))?;
    Ok((store["locked"].as_bool().context("no word of a lock")?, !key.contains("PRIVATE KEY")))
}

#[test]
fn a_manager_that_was_down_during_rotations_takes_the_key_it_was_told_last_and_no_other() {
    let cluster = cluster();
    let keys = Keys::begin(&cluster);
    let writes = Writes::new("mgr-lock");
    let seen = writes.during(&cluster, &[0, 1, 2], || {
        for victim in 0..MANAGERS {
            let node = cluster.node(victim);
            let others: Vec<usize> = (0..MANAGERS).filter(|index| *index != victim).collect();
            ensure!(sealed(node)? == (true, true), "{} is not sealed", node.name());
            let told = keys.newest();
            node.kill_daemon()?;
            keys.rotate_all(&others)?;
            keys.rotate_all(&others)?;
            let before = taken(node);
            start_locked(node)?;
            let listing = node.docker(&["node", "ls"])?.message()?;
            ensure!(listing.contains("Swarm is encrypted and needs to be unlocked"), "{listing}");
            for wrong in [STRANGER, "SWMKEY-1-short", "", &keys.of(told + 1), &keys.of(told + 2)] {
                let (status, said) = unlock(node, wrong)?;
                ensure!(status == 400 && said.contains(REFUSED), "{wrong:?}: {status}: {said}");
            }
            let (done, said) = type_key(&cluster, node, STRANGER)?;
            ensure!(
                !done && said.contains(&format!("Error response from daemon: {REFUSED}")),
                "{said}"
            );
            let (done, said) = type_key(&cluster, node, &keys.of(told))?;
            ensure!(done, "{said}");
            let (status, said) = unlock(node, &keys.of(told))?;
            ensure!(status == 409 && said.contains("swarm is not locked"), "{status}: {said}");
            back(&cluster, victim)?;
            // It takes the newest now, as the others have done.
            keys.await_taken(victim, before)?;
            let newest = keys.newest();
            node.kill_daemon()?;
            start_locked(node)?;
            let fitted = keys.open(victim, 0..=newest, true)?;
            ensure!(fitted == newest, "key {fitted} of {newest} fits {}", node.name());
            back(&cluster, victim)?;
        }
        // A worker keeps no secrets of the cluster, and starts by itself.
        cluster.node(WORKER).restart_daemon()?;
        let worker = state(cluster.node(WORKER))?;
        ensure!(worker == "active", "the worker is {worker}");
        Ok(())
    });
    seen.unwrap();
    drop(keys);
    whole(&cluster);
    writes.check(&cluster);
}

#[test]
fn managers_killed_in_the_middle_of_rotations_open_with_a_key_of_that_time_and_without_one_afterwards()
 {
    let cluster = cluster();
    let keys = Keys::begin(&cluster);
    let writes = Writes::new("mgr-relock");
    let mut known = [keys.newest(); MANAGERS];
    let seen = writes.during(&cluster, &[0, 1, 2], || {
        keys.rotating(|| {
            for round in 0..2 * MANAGERS {
                let victim = round % MANAGERS;
                let node = cluster.node(victim);
                node.kill_daemon()?;
                // One may have been rotated and not be noted yet.
                let latest = keys.newest() + 1;
                wait_for("another rotation", patiently(), || {
                    ensure!(keys.newest() > latest);
                    Ok(())
                })?;
                start_locked(node)?;
                let fitted = keys.open(victim, 0..=keys.newest(), round % 2 == 0)?;
                eprintln!("{} opened with key {fitted} of {}", node.name(), keys.newest());
                ensure!(
                    (known[victim]..=latest).contains(&fitted),
                    "{} took key {fitted}; it had {} before, and was killed at {latest}",
                    node.name(),
                    known[victim],
                );
                known[victim] = fitted;
                back(&cluster, victim)?;
            }
            Ok(())
        })?;
        // One is away when the lock is switched off: it needs its key once more, and never again.
        let away = cluster.node(0);
        away.kill_daemon()?;
        wait_for("the lock to be switched off", patiently(), || {
            cluster.node(1).docker(&["swarm", "update", "--autolock=false"])?.ok()
        })?;
        start_locked(away)?;
        keys.open(0, known[0]..=keys.newest(), false)?;
        for index in 0..MANAGERS {
            back(&cluster, index)?;
            let node = cluster.node(index);
            wait_for("nothing to be sealed", patiently(), || {
                ensure!(sealed(node)? == (false, false), "{} is sealed", node.name());
                Ok(())
            })?;
            node.kill_daemon()?;
            node.start_daemon()?;
            let state = state(node)?;
            ensure!(
                state == "active",
                "{} is {state} after the lock was switched off",
                node.name()
            );
            back(&cluster, index)?;
        }
        let shown = cluster.node(0).docker(&["swarm", "unlock-key", "-q"])?.ok();
        ensure!(shown.is_err() || shown.is_ok_and(|key| key.is_empty()), "there is a key yet");
        Ok(())
    });
    seen.unwrap();
    drop(keys);
    whole(&cluster);
    writes.check(&cluster);
}
