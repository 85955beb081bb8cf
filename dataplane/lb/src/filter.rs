//! Packet programs where the kernel has no tcx: filters of an interface's clsact qdisc.
//!
//! A filter belongs to its interface, not to a process, so it outlives the daemon without a link.
//! Ours is found again by its place, which is ours alone: a priority after all the kernel gives by
//! itself, and a handle for each program. A record in the pin folder, the program itself pinned under
//! its name and the interface's, says where to look. The record is written before the filter and
//! removed after it, so that a filter without one is never left.
use crate::{LbError, attach::failed, bpffs};
use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::Link as _,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use std::{fs, io, mem, path::Path};

/// After every priority the kernel gives by itself, which count down from 0xc000: programs of others
/// on the interface, say a firewall, see packets first.
const PRIORITY: u16 = 0xc001;
/// Upper half of our handles, "Sh": others at the priority have theirs counted up from 1.
const HANDLE: u16 = 0x5368;

/// Gives the filter at its place the loaded program, or makes a filter there. Others' stay.
pub(crate) fn put(
    program: &mut SchedClassifier,
    name: &'static str,
    ifname: &str,
    record: &Path,
) -> Result<(), LbError> {
    if replace(program, name, ifname, record)? {
        return Ok(());
    }
    make(program, name, ifname).map_err(|e| failed(name, interface(ifname))(Box::new(e)))
}

fn make(
    program: &mut SchedClassifier,
    name: &'static str,
    ifname: &str,
) -> Result<(), ProgramError> {
    match qdisc_add_clsact(ifname) {
        // Ours or somebody else's; an ingress qdisc takes the filter, too.
        Err(e) if errno_of(&e) == Some(libc::EEXIST) => {}
        other => other?,
    }
    let place = NlOptions { priority: PRIORITY, handle: handle(name), classid: None };
    let options = TcAttachOptions::Netlink(place);
    let filter = program.attach_with_options(ifname, TcAttachType::Ingress, options)?;
    keep(program.take_link(filter)?);
    Ok(())
}

/// Gives the filter that a record names the loaded program; no packet sees neither or both. `false`
/// when there is no such filter any more: the record stays all the same.
pub(crate) fn replace(
    program: &mut SchedClassifier,
    name: &'static str,
    ifname: &str,
    record: &Path,
) -> Result<bool, LbError> {
    write(program, record)?;
    let replaced = place(name, ifname)
        .map_err(|e| ProgramError::from(TcError::IoError(e)))
        .and_then(|filter| program.attach_to_link(filter))
        .and_then(|filter| program.take_link(filter));
    match replaced {
        Ok(filter) => {
            keep(filter);
            Ok(true)
        }
        Err(e) if is_gone(&e) => Ok(false),
        Err(e) => Err(failed(name, interface(ifname))(Box::new(e))),
    }
}

/// Takes the filter of a program off an interface, and its record away. Nothing there is success.
/// The qdisc stays, since another's filter may have come into it meanwhile; an empty one does nothing.
pub(crate) fn remove(name: &str, ifname: &str, record: &Path) -> Result<(), LbError> {
    let removed = match place(name, ifname) {
        Ok(filter) => filter.detach(),
        Err(e) => Err(TcError::IoError(e).into()),
    };
    match removed {
        Err(e) if !is_gone(&e) => Err(LbError::Detach {
            program: name.into(),
            target: interface(ifname),
            source: Box::new(e),
        }),
        _ => bpffs::unpin(record),
    }
}

/// Writes the record: at no time is there none.
fn write(program: &mut SchedClassifier, record: &Path) -> Result<(), LbError> {
    let new = record.with_file_name("new-record");
    bpffs::unpin(&new)?;
    let io = |e: aya::pin::PinError| io::Error::other(e);
    program.pin(&new).map_err(|e| bpffs::failed("pin a program at", &new)(io(e)))?;
    fs::rename(&new, record).map_err(bpffs::failed("pin a program at", record))
}

/// The place of a program's filter on an interface. Dropping it removes the filter.
fn place(name: &str, ifname: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(ifname, TcAttachType::Ingress, PRIORITY, handle(name), None)
}

fn handle(name: &str) -> TcHandle {
    let index = crate::attach::AT_INTERFACES.iter().position(|program| *program == name);
    TcHandle::new(HANDLE, index.map_or(0, |index| index as u16 + 1))
}

/// Lets the filter outlive this process: it would be removed when dropped.
fn keep(filter: SchedClassifierLink) {
    mem::forget(filter);
}

fn interface(ifname: &str) -> String {
    format!("network interface {ifname}")
}

/// Whether the filter, its qdisc or its interface is not there.
fn is_gone(error: &ProgramError) -> bool {
    let errno = match error {
        ProgramError::NetlinkError(e) => e.raw_os_error(),
        ProgramError::TcError(e) => errno_of(e),
        _ => None,
    };
    // EINVAL: the interface has no qdisc that takes filters.
    matches!(errno, Some(libc::ENOENT | libc::EINVAL | libc::ENODEV | libc::ENXIO))
}

fn errno_of(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(e) => e.raw_os_error(),
        TcError::IoError(e) => e.raw_os_error(),
        _ => None,
    }
}

/// Whether an interface can be given a clsact qdisc.
pub(crate) fn probe(ifname: &str) -> Option<bool> {
    match qdisc_add_clsact(ifname) {
        Ok(()) => Some(true),
        Err(e) => match errno_of(&e) {
            Some(libc::EEXIST) => Some(true),
            Some(libc::ENOENT) => Some(false),
            _ => None,
        },
    }
}
