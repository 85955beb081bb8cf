//! The load balancer of a node: programs, maps and links of one pin folder.
use crate::{
    Contents, Counters, Hook, LbError, LbTable, attach, bpffs, contents,
    maps::{self, Maps, SHAPES, Shape},
    plan, probe_host, problems,
};
use aya::{Ebpf, EbpfLoader};
use std::path::PathBuf;
use tracing::{debug, info};

/// The kernel-side programs, built before this crate.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SHOAL_BPF_OBJECT_PATH"));

/// Where the data plane lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LbConfig {
    /// Folder for pins; a BPF file system is mounted there unless it is in one.
    pub bpf_root: PathBuf,
    /// Folder of the cgroup v2 group whose processes, and those of all groups below it, are given
    /// VIPs at the socket. Made if missing.
    pub cgroup: PathBuf,
}

/// The load balancer. Dropping it leaves everything working as it is.
///
/// `attach_*`, `detach_*` and [`Lb::apply`] change; [`Lb::counters`] and
/// [`Lb::attached_containers`] read. All block for as long as system calls do, some milliseconds.
pub struct Lb {
    ebpf: Ebpf,
    maps: Maps,
    hook: Hook,
    folder: PathBuf,
    root: PathBuf,
    /// What the maps hold; unknown at first, and after a failed write.
    current: Option<Contents>,
}

impl std::fmt::Debug for Lb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lb").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Lb {
    /// Loads the programs, with the maps that are pinned or with new ones, and attaches those of
    /// sockets. Links and filters left by an earlier run get the new programs, without a gap; those of
    /// other layouts are removed afterwards. Call it in the host's network namespace, and so all
    /// that attaches and detaches.
    ///
    /// # Errors
    /// [`LbError::Host`] when the host lacks something; when pinned maps do not fit; when the kernel
    /// refuses.
    pub fn open(config: &LbConfig) -> Result<Lb, LbError> {
        let host = probe_host();
        match problems(&host) {
            none if none.is_empty() => Lb::open_by(host.hook(), config),
            problems => Err(LbError::Host(problems)),
        }
    }

    /// The same, with the programs of interfaces hung up as told, without looking at the host.
    ///
    /// # Errors
    /// As [`Lb::open`], but for [`LbError::Host`].
    pub fn open_by(hook: Hook, config: &LbConfig) -> Result<Lb, LbError> {
        let folder = bpffs::prepare(&config.bpf_root)?;
        let cgroup = bpffs::open_cgroup(&config.cgroup)?;
        let mut loader = EbpfLoader::new();
        for Shape { name, .. } in SHAPES {
            loader.map_pin_path(name, folder.join(name));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|e| LbError::Load(Box::new(e)))?;
        maps::check_shapes(&folder)?;
        attach::load(&mut ebpf)?;
        let maps = Maps::take(&mut ebpf)?;
        attach::take_over(&mut ebpf, &folder)?;
        attach::at_cgroup(&mut ebpf, &folder, &config.cgroup, &cgroup)?;
        for other in bpffs::layouts(&config.bpf_root, Some(&folder))? {
            info!(folder = %other.display(), "removing the data plane of another layout");
            bpffs::remove(&other)?;
        }
        info!(?hook, "load balancer open");
        Ok(Lb { ebpf, maps, hook, folder, root: config.bpf_root.clone(), current: None })
    }

    /// Attaches to the overlay device.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses.
    pub fn attach_overlay(&mut self, ifname: &str) -> Result<(), LbError> {
        self.attach(attach::FROM_OVERLAY, ifname)
    }

    /// Attaches to the uplink, and detaches from another one if the uplink has changed.
    ///
    /// # Errors
    /// As [`Lb::attach_overlay`].
    pub fn attach_uplink(&mut self, ifname: &str) -> Result<(), LbError> {
        self.attach(attach::FROM_UPLINK, ifname)?;
        for other in attach::interfaces(&self.folder, attach::FROM_UPLINK)? {
            if other != ifname {
                attach::detach(&self.folder, attach::FROM_UPLINK, &other)?;
            }
        }
        Ok(())
    }

    /// Attaches to the host's end of a container's cable.
    ///
    /// # Errors
    /// As [`Lb::attach_overlay`].
    pub fn attach_container(&mut self, host_ifname: &str) -> Result<(), LbError> {
        self.attach(attach::FROM_CONTAINER, host_ifname)
    }

    fn attach(&mut self, program: &'static str, ifname: &str) -> Result<(), LbError> {
        attach::at_interface(&mut self.ebpf, &self.folder, self.hook, program, ifname)
    }

    /// Detaches from the overlay device; nothing there is success.
    ///
    /// # Errors
    /// When the kernel refuses, or the pin cannot be removed.
    pub fn detach_overlay(&mut self, ifname: &str) -> Result<(), LbError> {
        attach::detach(&self.folder, attach::FROM_OVERLAY, ifname)
    }

    /// Detaches from the uplink; nothing there is success.
    ///
    /// # Errors
    /// When the kernel refuses, or the pin cannot be removed.
    pub fn detach_uplink(&mut self, ifname: &str) -> Result<(), LbError> {
        attach::detach(&self.folder, attach::FROM_UPLINK, ifname)
    }

    /// Detaches from a container's cable; nothing there is success. Needed also when the cable is
    /// gone, which leaves the pin.
    ///
    /// # Errors
    /// When the kernel refuses, or the pin cannot be removed.
    pub fn detach_container(&mut self, host_ifname: &str) -> Result<(), LbError> {
        attach::detach(&self.folder, attach::FROM_CONTAINER, host_ifname)
    }

    /// Names of the containers' cables attached to, by their pins.
    ///
    /// # Errors
    /// When the pin folder cannot be read.
    pub fn attached_containers(&self) -> Result<Vec<String>, LbError> {
        attach::interfaces(&self.folder, attach::FROM_CONTAINER)
    }

    /// Makes the maps hold what `table` says, changing only what differs. Returns the number of
    /// changes.
    ///
    /// # Errors
    /// [`LbError::Table`] when the table is refused: then nothing has changed. After another error
    /// the next call reads the maps again and goes on from what they hold.
    pub fn apply(&mut self, table: &LbTable) -> Result<usize, LbError> {
        let old = match self.current.take() {
            Some(current) => current,
            None => self.maps.read()?,
        };
        let new = match contents(table, &old) {
            Ok(new) => new,
            Err(refused) => {
                self.current = Some(old);
                return Err(refused.into());
            }
        };
        let changes = plan(&old, &new);
        for change in &changes {
            self.maps.write(change)?;
        }
        debug!(changes = changes.len(), "load balancer's tables changed");
        self.current = Some(new);
        Ok(changes.len())
    }

    /// What the maps hold, read from the kernel.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn read(&self) -> Result<Contents, LbError> {
        self.maps.read()
    }

    /// Reads all counters.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn counters(&self) -> Result<Counters, LbError> {
        match &self.current {
            Some(current) => Counters::read(&self.maps, current),
            None => Counters::read(&self.maps, &self.maps.read()?),
        }
    }

    /// Detaches and unpins everything: the node leaves the cluster. The mount stays.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn release_pins(self) -> Result<(), LbError> {
        for folder in bpffs::layouts(&self.root, None)? {
            bpffs::remove(&folder)?;
        }
        Ok(())
    }
}
