//! `execve` itself: the standard library's goes through `execvp`, which would run a file of unknown
//! format with a shell, where Docker says "exec format error".

#![expect(unsafe_code, reason = "neither std nor rustix has a plain execve")]

use std::ffi::{CString, NulError, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;

/// Replaces this process's program, with this process's environment. Returns only with an error.
pub(super) fn execute(path: &Path, args: &[String]) -> io::Error {
    match prepared(path, args) {
        Ok((path, args, env)) => {
            let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
                texts.iter().map(|t| t.as_ptr()).chain([ptr::null()]).collect()
            };
            let (args, env) = (pointers(&args), pointers(&env));
            // SAFETY: restores a default disposition; no handler is involved. Rust's start-up ignores
            // SIGPIPE, and an ignored signal stays ignored in the new program.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            // SAFETY: `path` is a C string and the arrays end in null; the strings they point to are
            // the vectors borrowed above, alive until the call returns, if it does.
            unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
            io::Error::last_os_error()
        }
        Err(e) => e.into(),
    }
}

type Prepared = (CString, Vec<CString>, Vec<CString>);

fn prepared(path: &Path, args: &[String]) -> Result<Prepared, NulError> {
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec())
    };
    Ok((
        CString::new(path.as_os_str().as_bytes())?,
        args.iter().map(|a| CString::new(a.as_bytes())).collect::<Result<_, _>>()?,
        std::env::vars_os().map(variable).collect::<Result<_, _>>()?,
    ))
}
