//! The shim's and the exec helper's entry points as a program of their own, for the tests of this
//! crate. The `shoal` binary has the same two as hidden sub-commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|a| a.to_str()) {
        Some("shim") => shoal_containers::shim_main(args),
        Some("shim-exec") => shoal_containers::exec_main(args),
        _ => {
            eprintln!("usage: shoal-shim-test shim|shim-exec …");
            ExitCode::from(2)
        }
    }
}
