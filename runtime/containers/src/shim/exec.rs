//! One exec session: a helper process, its streams, and the connection they go over.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::container::{STATE, listen, pipe_of, told, uid_of};
use super::control::Shared;
use super::helper::{CONSOLE, PROCESS, Status};
use super::{console, control};
use crate::wire::{
    CHUNK, ExecRequest, Failure, Kind, Reply, Size, read_frame, write_frame, write_reply,
};

/// After the process has ended: how long its streams may be silent before they count as ended. A
/// grandchild in the background may hold them open for ever.
const DRAIN: Duration = Duration::from_millis(100);

/// Serves one exec from its request to its exit code.
pub(super) fn serve(
    mut stream: UnixStream,
    request: ExecRequest,
    shared: &Shared,
) -> io::Result<()> {
    match spawn(&request, shared) {
        Ok(session) => session.carry(stream),
        Err(failure) => write_reply(&mut stream, &Reply::Failed(failure)),
    }
}

/// A session's folder in the bundle, which goes away with it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            eprintln!("delete {}: {e}", self.0.display());
        }
    }
}

struct Session {
    folder: Option<Folder>,
    status: File,
    outputs: Vec<(Kind, File)>,
    stdin: Option<File>,
    /// Where the terminal will be sent.
    listener: Option<UnixListener>,
    wants_stdin: bool,
}

fn spawn(request: &ExecRequest, shared: &Shared) -> Result<Session, Failure> {
    prepare(request, shared).map_err(|e| told(&e))
}

fn prepare(request: &ExecRequest, shared: &Shared) -> io::Result<Session> {
    let id = &shared.config.id;
    let number = shared.sessions.fetch_add(1, Ordering::Relaxed);
    let path = PathBuf::from(format!("exec-{number}"));
    fs::create_dir(&path)?;
    let folder = Folder(path.clone());
    // libcontainer leaves a socket behind for each exec: a copy of its state keeps them in here.
    fs::create_dir(path.join(id))?;
    let state = Path::new(STATE).join(id).join("state.json");
    fs::copy(state, path.join(id).join("state.json"))?;
    fs::write(path.join(PROCESS), serde_json::to_vec(&request.process)?)?;

    let uid = uid_of(&request.process);
    let mut outputs = Vec::new();
    let (mut stdin, mut listener) = (None, None);
    let [mut child_in, mut child_out, mut child_err] = [const { None::<OwnedFd> }; 3];
    if request.tty {
        listener = Some(listen(&path.join(CONSOLE))?);
    } else {
        let (read, write) = pipe_of(uid)?;
        outputs.push((Kind::Stdout, control::file(read)));
        child_out = Some(write);
        let (read, write) = pipe_of(uid)?;
        outputs.push((Kind::Stderr, control::file(read)));
        child_err = Some(write);
        if request.stdin {
            let (read, write) = pipe_of(uid)?;
            stdin = Some(control::file(write));
            child_in = Some(read);
        }
    }
    let (status, status_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let stdio = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
    let [program, args @ ..] = shared.config.exec_command.as_slice() else {
        return Err(io::Error::other("no exec helper is configured"));
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .arg("--bundle")
        .arg(std::env::current_dir()?)
        .arg("--session")
        .arg(&path)
        .arg("--status")
        .arg(format!("/proc/self/fd/{}", status_write.as_raw_fd()))
        .stdin(stdio(child_in))
        .stdout(stdio(child_out))
        .stderr(stdio(child_err));
    {
        // Only one child may inherit this descriptor: nobody else starts one meanwhile.
        let _alone = shared.spawning.lock().unwrap_or_else(PoisonError::into_inner);
        fcntl_setfd(&status_write, FdFlags::empty())?;
        // Reaped by the first thread, which reaps everybody.
        command.spawn()?;
        drop(status_write);
    }
    // Closes our copies of the child's ends.
    drop(command);
    Ok(Session {
        folder: Some(folder),
        status: File::from(status),
        outputs,
        stdin,
        listener,
        wants_stdin: request.stdin,
    })
}

impl Session {
    /// Carries everything until the process has ended. A daemon that goes away meanwhile does not stop
    /// the process; its output is then read and thrown away.
    fn carry(mut self, mut stream: UnixStream) -> io::Result<()> {
        let mut lines = Vec::new();
        let pid = match self.next_status(&mut lines)? {
            Some(Status::Started(pid)) => pid,
            Some(Status::Failed(failure)) => {
                return write_reply(&mut stream, &Reply::Failed(failure));
            }
            Some(Status::Exited(_)) | None => {
                let reason = "the exec helper ended without a word".to_owned();
                return write_reply(&mut stream, &Reply::Failed(Failure { reason, code: 125 }));
            }
        };
        // Taken before anybody asks to kill it: a number may be given to another process later.
        let process = Pid::from_raw(pid).and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok());
        let mut terminal = None;
        if let Some(listener) = self.listener.take() {
            let side = console::receive(&listener)?;
            self.outputs.push((Kind::Stdout, File::from(side.try_clone()?)));
            self.stdin = self.wants_stdin.then(|| side.try_clone().map(File::from)).transpose()?;
            terminal = Some(side);
        }
        let _ = write_reply(&mut stream, &Reply::Ok);
        let (input, from) = (self.stdin.take(), stream.try_clone()?);
        thread::Builder::new()
            .name("exec-stdin".to_owned())
            .spawn(move || feed(from, input, terminal, process))?;
        let code = self.pump(&mut stream, &mut lines)?;
        // First, so that whoever has the exit code finds nothing left.
        self.folder = None;
        let _ = write_frame(&mut stream, Kind::Exit, code.to_string().as_bytes());
        let _ = stream.shutdown(Shutdown::Both);
        Ok(())
    }

    /// Streams output until the process has ended and its output is silent. Gives the exit code.
    fn pump(&mut self, stream: &mut UnixStream, lines: &mut Vec<u8>) -> io::Result<i32> {
        let mut code = None;
        let mut chunk = vec![0; CHUNK];
        let drain = Timespec::try_from(DRAIN).map_err(io::Error::other)?;
        loop {
            let mut fds: Vec<PollFd<'_>> =
                self.outputs.iter().map(|(_, f)| PollFd::new(f, PollFlags::IN)).collect();
            if code.is_none() {
                fds.push(PollFd::new(&self.status, PollFlags::IN));
            } else if fds.is_empty() {
                break;
            }
            match poll(&mut fds, code.map(|_| &drain)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
            for at in (0..self.outputs.len()).rev().filter(|at| ready[*at]) {
                let (kind, file) = &mut self.outputs[at];
                match file.read(&mut chunk) {
                    Ok(n) if n > 0 => drop(write_frame(stream, *kind, &chunk[..n])),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // A terminal ends with EIO, a pipe with 0 bytes.
                    _ => drop(self.outputs.remove(at)),
                }
            }
            if code.is_none() && ready.last() == Some(&true) {
                code = Some(match self.next_status(lines)? {
                    Some(Status::Exited(code)) => code,
                    _ => 255,
                });
            }
        }
        Ok(code.unwrap_or(255))
    }

    /// The helper's next word: a line of JSON. `None` at its end.
    fn next_status(&mut self, pending: &mut Vec<u8>) -> io::Result<Option<Status>> {
        loop {
            if let Some(end) = pending.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let mut chunk = [0; 4096];
            match self.status.read(&mut chunk)? {
                0 => return Ok(None),
                n => pending.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

/// Carries input to the process until either side ends.
fn feed(
    mut from: UnixStream,
    mut input: Option<File>,
    terminal: Option<OwnedFd>,
    process: Option<OwnedFd>,
) {
    while let Ok(Some((kind, payload))) = read_frame(&mut from) {
        match kind {
            Kind::Stdin if payload.is_empty() => {
                if terminal.is_none() {
                    input = None;
                }
            }
            Kind::Stdin => {
                if let Some(file) = &mut input
                    && file.write_all(&payload).is_err()
                {
                    input = None;
                }
            }
            Kind::Resize => {
                if let (Some(terminal), Ok(size)) =
                    (&terminal, serde_json::from_slice::<Size>(&payload))
                    && let Err(e) = console::resize(terminal, size)
                {
                    eprintln!("resize: {e}");
                }
            }
            Kind::Kill => {
                // One that has ended cannot be killed, and need not.
                let _ = process.as_ref().map(|p| pidfd_send_signal(p, Signal::KILL));
            }
            _ => break,
        }
    }
}
