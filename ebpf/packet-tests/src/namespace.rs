//! Network namespaces that live as long as a thread.
use std::{
    panic,
    process::Command,
    sync::mpsc::{self, Sender},
    thread::{self, JoinHandle},
};

use crate::system;

type Job = Box<dyn FnOnce() + Send>;

/// Runs a test in a network namespace of its own.
///
/// # Panics
///
/// When the test does, or without the right to make namespaces.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            system::new_network_namespace();
            ip("link set lo up");
            test()
        });
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// A network namespace kept by a thread that runs what it is given inside.
pub struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Thread that keeps it, in the form `ip link set … netns` takes.
    pub id: i32,
}

impl Namespace {
    /// Makes one, without IPv6's own chatter (neighbour and listener discovery) on its links.
    ///
    /// # Panics
    ///
    /// Without the right to make namespaces.
    pub fn new() -> Namespace {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (send, receive) = mpsc::channel();
        let thread = thread::spawn(move || {
            system::new_network_namespace();
            ip("link set lo up");
            send.send(system::thread_id()).expect("the maker waits");
            while let Ok(job) = queue.recv() {
                job();
            }
        });
        let id = receive.recv().expect("the thread reports");
        Namespace { jobs: Some(jobs), thread: Some(thread), id }
    }

    /// Runs a function inside and returns what it does.
    ///
    /// # Panics
    ///
    /// When the function does.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (send, receive) = mpsc::channel();
        let job = Box::new(move || {
            let _ = send.send(panic::catch_unwind(panic::AssertUnwindSafe(job)));
        });
        self.jobs.as_ref().expect("open until dropped").send(job).expect("the thread lives");
        receive
            .recv()
            .expect("the thread lives")
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            // A panic inside was already reported by `run`.
            let _ = thread.join();
        }
    }
}

/// Runs `ip` in the calling thread's namespace.
///
/// # Panics
///
/// When it fails, with what it says.
pub fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("`ip` is installed (package iproute2)");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
}
