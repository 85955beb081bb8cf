//! The programs and where they hang. Every link is pinned under the name of its program and, if it
//! hangs on an interface, that one's, so that it outlives the daemon. Where the kernel has no links
//! for interfaces, a [filter] hangs there instead, with a record under such a name.
use crate::{
    Hook, LbError,
    bpffs::{pins, unpin, unpin_link},
    filter,
    kernel::{self, Target},
};
use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, Program, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, LinkOrder},
        tc::TcAttachOptions,
    },
};
use std::{
    error::Error,
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

/// Programs at the control group.
pub(crate) const AT_CGROUP: [&str; 9] = [
    "vip_connect4",
    "vip_connect6",
    "vip_sendmsg4",
    "vip_sendmsg6",
    "vip_recvmsg4",
    "vip_recvmsg6",
    "vip_getpeername4",
    "vip_getpeername6",
    "vip_release",
];
/// Program on the host's end of each container's cable.
pub(crate) const FROM_CONTAINER: &str = "from_container";
/// Program on the overlay device.
pub(crate) const FROM_OVERLAY: &str = "from_overlay";
/// Program on the uplink.
pub(crate) const FROM_UPLINK: &str = "from_uplink";

/// Start of the name of a pinned link.
const LINK: &str = "link-";
/// Start of the name of a filter's record.
const FILTER: &str = "filter-";

/// Programs on interfaces. Their order is part of what filters are found again by.
pub(crate) const AT_INTERFACES: [&str; 3] = [FROM_CONTAINER, FROM_OVERLAY, FROM_UPLINK];

/// Loads all programs into the kernel.
pub(crate) fn load(ebpf: &mut Ebpf) -> Result<(), LbError> {
    for name in AT_CGROUP.into_iter().chain(AT_INTERFACES) {
        let loaded = match program(ebpf, name)? {
            Program::CgroupSockAddr(p) => p.load(),
            Program::CgroupSock(p) => p.load(),
            Program::SchedClassifier(p) => p.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        loaded.map_err(|e| LbError::Program { program: name, source: Box::new(e) })?;
    }
    Ok(())
}

/// Gives every pinned link, and every filter on record, on an interface the program just loaded, and
/// removes those that hang on nothing any more, or belong to a program that no longer exists.
pub(crate) fn take_over(ebpf: &mut Ebpf, folder: &Path) -> Result<(), LbError> {
    for pin in pins(folder)? {
        let path = folder.join(&pin);
        if let Some((name, ifname)) = filter_of(&pin) {
            if !filter::replace(classifier(ebpf, name)?, name, &ifname, &path)? {
                filter::remove(name, &ifname, &path)?;
            }
            continue;
        }
        let Some(name) = pin.strip_prefix("link-") else { continue };
        let of_interface = |p: &&str| name.strip_prefix(p).is_some_and(|r| r.starts_with('-'));
        if let Some(program) = AT_INTERFACES.into_iter().find(of_interface) {
            let attached = |target| matches!(target, Target::Interface(index) if index != 0);
            if !replace(ebpf, program, &path, attached)? {
                unpin_link(&path)?;
            }
        } else if !AT_CGROUP.contains(&name) {
            unpin_link(&path)?;
        }
    }
    Ok(())
}

/// Attaches the programs of sockets to a control group.
pub(crate) fn at_cgroup(
    ebpf: &mut Ebpf,
    folder: &Path,
    path: &Path,
    cgroup: &File,
) -> Result<(), LbError> {
    let id = cgroup.metadata().map_err(crate::bpffs::failed("look at", path))?.ino();
    for name in AT_CGROUP {
        let pin = folder.join(format!("link-{name}"));
        if replace(ebpf, name, &pin, |target| target == Target::Cgroup(id))? {
            continue;
        }
        unpin_link(&pin)?;
        // A link always lets others attach to the same group and to groups below it, and takes no
        // flag that says so: hence "single".
        let mode = CgroupAttachMode::Single;
        let attached = match program(ebpf, name)? {
            Program::CgroupSockAddr(p) => {
                p.attach(cgroup, mode).and_then(|link| Ok(FdLink::try_from(p.take_link(link)?)))
            }
            Program::CgroupSock(p) => {
                p.attach(cgroup, mode).and_then(|link| Ok(FdLink::try_from(p.take_link(link)?)))
            }
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        let failed = failed(name, path.display().to_string());
        let link = match attached {
            Err(e) => return Err(failed(Box::new(e))),
            Ok(Err(e)) => return Err(failed(Box::new(e))),
            Ok(Ok(link)) => link,
        };
        link.pin(&pin).map_err(|e| failed(Box::new(e)))?;
    }
    Ok(())
}

/// Attaches a program to an interface, or gives it to the link or filter that is there.
pub(crate) fn at_interface(
    ebpf: &mut Ebpf,
    folder: &Path,
    hook: Hook,
    name: &'static str,
    ifname: &str,
) -> Result<(), LbError> {
    let index = kernel::interface_index(ifname)
        .map_err(|e| failed(name, format!("network interface {ifname}"))(Box::new(e)))?;
    let link = folder.join(pin_name(LINK, name, ifname));
    let record = folder.join(pin_name(FILTER, name, ifname));
    // The other way's, if there is one, goes once this one's is there.
    match hook {
        Hook::Tcx => {
            by_link(ebpf, &link, name, ifname, index)?;
            if record.exists() { filter::remove(name, ifname, &record) } else { Ok(()) }
        }
        Hook::Clsact => {
            filter::put(classifier(ebpf, name)?, name, ifname, &record)?;
            unpin_link(&link)
        }
    }
}

fn by_link(
    ebpf: &mut Ebpf,
    pin: &Path,
    name: &'static str,
    ifname: &str,
    index: u32,
) -> Result<(), LbError> {
    if replace(ebpf, name, pin, |target| target == Target::Interface(index))? {
        return Ok(());
    }
    unpin_link(pin)?;
    let failed = failed(name, format!("network interface {ifname}"));
    let program = classifier(ebpf, name)?;
    // Last in order: programs of others on the interface, say a firewall, see packets first.
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let attached = program
        .attach_with_options(ifname, TcAttachType::Ingress, options)
        .and_then(|link| Ok(FdLink::try_from(program.take_link(link)?)));
    let link = match attached {
        Err(e) => return Err(failed(Box::new(e))),
        Ok(Err(e)) => return Err(failed(Box::new(e))),
        Ok(Ok(link)) => link,
    };
    link.pin(pin).map_err(|e| failed(Box::new(e)))?;
    Ok(())
}

/// Detaches a program from an interface. Nothing there is success.
pub(crate) fn detach(folder: &Path, name: &'static str, ifname: &str) -> Result<(), LbError> {
    let record = folder.join(pin_name(FILTER, name, ifname));
    if record.exists() {
        filter::remove(name, ifname, &record)?;
    }
    unpin_link(&folder.join(pin_name(LINK, name, ifname)))
}

/// Names of the interfaces a program hangs on, or did until they went.
pub(crate) fn interfaces(folder: &Path, name: &'static str) -> Result<Vec<String>, LbError> {
    let prefixes = [LINK, FILTER].map(|kind| format!("{kind}{name}-"));
    let all = pins(folder)?;
    let of_program = |pin: &String| {
        prefixes.iter().find_map(|prefix| pin.strip_prefix(prefix)).map(|n| n.replace("%2e", "."))
    };
    Ok(all.iter().filter_map(of_program).collect())
}

/// Removes a pin of whatever kind, with what hangs somewhere because of it.
pub(crate) fn remove(folder: &Path, pin: &str) -> Result<(), LbError> {
    let path = folder.join(pin);
    match filter_of(pin) {
        Some((name, ifname)) => filter::remove(name, &ifname, &path),
        None if pin.starts_with(LINK) => unpin_link(&path),
        None => unpin(&path),
    }
}

/// Whether something hangs somewhere because of a pin.
pub(crate) fn is_attachment(pin: &str) -> bool {
    pin.starts_with(LINK) || pin.starts_with(FILTER)
}

/// Program and interface of a filter's record.
fn filter_of(pin: &str) -> Option<(&'static str, String)> {
    let rest = pin.strip_prefix(FILTER)?;
    AT_INTERFACES.into_iter().find_map(|name| {
        let ifname = rest.strip_prefix(name)?.strip_prefix('-')?;
        Some((name, ifname.replace("%2e", ".")))
    })
}

/// The BPF file system takes no dots in names.
fn pin_name(kind: &str, program: &str, ifname: &str) -> String {
    format!("{kind}{program}-{}", ifname.replace('.', "%2e"))
}

/// Gives a pinned link the loaded program if the link is there and hangs where it should.
fn replace(
    ebpf: &mut Ebpf,
    name: &'static str,
    pin: &Path,
    right: impl FnOnce(Target) -> bool,
) -> Result<bool, LbError> {
    let Ok(link) = kernel::pinned(pin) else { return Ok(false) };
    if !kernel::target(link.as_fd()).is_ok_and(right) {
        return Ok(false);
    }
    let program: OwnedFd = program(ebpf, name)?
        .fd()
        .and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?))
        .map_err(|e| LbError::Program { program: name, source: Box::new(e) })?;
    match kernel::replace(link.as_fd(), program.as_fd()) {
        Ok(()) => Ok(true),
        // Its target has just gone.
        Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        Err(e) => Err(failed(name, pin.display().to_string())(Box::new(e))),
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, LbError> {
    ebpf.program_mut(name).ok_or(LbError::Missing { kind: "program", name })
}

fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, LbError> {
    program(ebpf, name)?
        .try_into()
        .map_err(|e| LbError::Program { program: name, source: Box::new(e) })
}

pub(crate) fn failed(
    program: &'static str,
    target: String,
) -> impl Fn(Box<dyn Error + Send + Sync>) -> LbError {
    move |source| LbError::Attach { program, target: target.clone(), source }
}
