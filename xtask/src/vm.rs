//! The tests of what depends on the kernel, or the demo, on another one: Debian's, in a virtual machine
//! without KVM. Nothing of it is installed; all is below `target/vm`.

use crate::{
    docker,
    packages::{self, Package},
    process, setup,
    test::{self, TestProgram},
    workspace,
};
use anyhow::{Context as _, bail};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Crates with tests that depend on the kernel.
const CRATES: [&str; 4] = ["shoal-packet-tests", "shoal-lb", "shoal-links", "shoal-images"];
/// Programs of this machine that the tests and the demo call.
const PROGRAMS: [&str; 10] =
    ["bash", "sh", "busybox", "ip", "tc", "mount", "unshare", "nsenter", "tcpdump", "modprobe"];
/// Modules without which there is no root file system.
const ROOT_MODULES: [&str; 2] = ["virtio_pci", "virtio_blk"];
/// What the machine says at the end, with the sum of what failed.
const END: &str = "VM-END ";
/// Size of the disk; only what is used takes space.
const DISK: &str = "4G";
const MEMORY: &str = "3G";

/// tcpdump gives up its rights for a user of its own.
const PASSWD: &str = "root:x:0:0::/root:/bin/bash\ntcpdump:x:100:100::/:/bin/false\n";

/// First process of the machine. `/job` is what to run.
const INIT: &str = "#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp; mount -t tmpfs run /run; mount -t cgroup2 none /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
ip link set lo up
modprobe tun; modprobe overlay
echo \"Linux $(uname -r)\"
failed=0
. /job
echo \"VM-END $failed\"
sync; echo o > /proc/sysrq-trigger; sleep 60
";

/// Runs the tests, those whose name contains `filter`, or the demo, on the newest Debian kernel of a
/// version.
pub(crate) fn run(version: &str, demo: bool, filter: Option<&str>) -> anyhow::Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the virtual machine is an x86-64 one: this machine is not");
    }
    packages::install(&[
        Package::new("qemu-system-x86", "the virtual machine"),
        Package::new("e2fsprogs", "makes its disk"),
        Package::new("kmod", "loads modules in it"),
        Package::new("cpio", "packs its first file system"),
        Package::new("util-linux", "namespaces for the demo's nodes"),
    ])?;
    setup::build(setup::For::Demo, false)?;
    let folder = workspace::root().join("target/vm").join(version);
    let kernel = Kernel::fetch(version, &folder)?;
    let root = Root::make(&kernel, &folder.join("root"))?;
    let job = if demo { root.demo()? } else { root.tests(filter)? };
    fs::write(root.path.join("job"), job)?;
    let disk = folder.join("disk");
    if disk.exists() {
        fs::remove_file(&disk)?;
    }
    let mut mkfs = Command::new("/usr/sbin/mkfs.ext4");
    process::run(
        mkfs.args(["-q", "-E", "root_owner=0:0", "-d"]).arg(&root.path).arg(&disk).arg(DISK),
    )?;
    let initrd = initrd(&kernel, &folder)?;
    boot(&kernel, &initrd, &disk)
}

/// An unpacked kernel package.
struct Kernel {
    folder: PathBuf,
    release: String,
}

impl Kernel {
    /// Downloads and unpacks the newest one, unless it is there.
    fn fetch(version: &str, folder: &Path) -> anyhow::Result<Self> {
        let prefix = format!("linux-image-{version}.");
        let mut offered = offered(&prefix)?;
        if offered.is_empty() {
            packages::refresh()?;
            offered = self::offered(&prefix)?;
        }
        let Some(package) = offered.pop() else {
            bail!(
                "{} offers no package {prefix}*-cloud-amd64: name another version, or add a source \
                 that has it (6.1 is in Debian 12, 6.12 in its backports)",
                packages::distribution()
            );
        };
        let unpacked = folder.join(&package);
        if !unpacked.exists() {
            println!("Downloading {package}: it is unpacked below target/vm, not installed.");
            let new = folder.join("new");
            // Left by a run that was interrupted.
            if new.exists() {
                fs::remove_dir_all(&new)?;
            }
            packages::unpack(&package, &new)?;
            fs::rename(&new, &unpacked)?;
        }
        let release = package.trim_start_matches("linux-image-").to_owned();
        Ok(Self { folder: unpacked, release })
    }

    fn modules(&self) -> PathBuf {
        // Debian 13 moved them.
        let places = ["lib/modules", "usr/lib/modules"].map(|p| self.folder.join(p));
        let place = places.iter().find(|p| p.is_dir()).unwrap_or(&places[0]);
        place.join(&self.release)
    }
}

/// The kernels for clouds whose package names begin so, the newest last.
fn offered(prefix: &str) -> anyhow::Result<Vec<String>> {
    let names = process::output(Command::new("apt-cache").args(["pkgnames", prefix]))?;
    let clouds = names.lines().filter(|name| name.ends_with("-cloud-amd64"));
    let mut offered: Vec<String> =
        clouds.filter(|name| packages::is_offered(name)).map(str::to_owned).collect();
    offered.sort_by_key(|name| numbers(name));
    Ok(offered)
}

/// The numbers in a package's name, by which versions are ordered.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The machine's root file system: a few programs of this machine, with their libraries, at the
/// same places, and a link to busybox for every other command.
struct Root {
    path: PathBuf,
}

impl Root {
    fn make(kernel: &Kernel, path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
        for folder in ["bin", "dev", "etc", "lib/modules", "proc", "root", "run", "sys", "tmp"] {
            fs::create_dir_all(path.join(folder))?;
        }
        let root = Self { path: path.to_owned() };
        let mut copy = Command::new("cp");
        process::run(copy.arg("-a").arg(kernel.modules()).arg(path.join("lib/modules")))?;
        process::run(Command::new("/usr/sbin/depmod").arg("-b").arg(path).arg(&kernel.release))?;
        for program in PROGRAMS {
            let here =
                ["/bin", "/sbin", "/usr/bin", "/usr/sbin"].map(|d| Path::new(d).join(program));
            let found = here.iter().find(|p| p.is_file());
            root.copy(found.with_context(|| format!("there is no {program} on this machine"))?)?;
        }
        for name in process::output(Command::new("busybox").arg("--list"))?.lines() {
            let places = ["bin", "sbin", "usr/bin", "usr/sbin"].map(|d| path.join(d).join(name));
            if !places.iter().any(|place| place.exists()) {
                symlink("/bin/busybox", &places[0])?;
            }
        }
        fs::write(path.join("etc/passwd"), PASSWD)?;
        fs::write(path.join("etc/group"), "root:x:0:\ntcpdump:x:100:\n")?;
        fs::write(path.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
        // Nodes mount their own over it.
        fs::write(path.join("etc/resolv.conf"), "")?;
        fs::write(path.join("init"), INIT)?;
        process::run(Command::new("chmod").arg("755").arg(path.join("init")))?;
        Ok(root)
    }

    /// Copies a program and its libraries to the same places.
    fn copy(&self, program: &Path) -> anyhow::Result<()> {
        // Fails for one that needs none.
        let listing = Command::new("ldd").arg(program).output()?;
        let text = String::from_utf8_lossy(&listing.stdout).into_owned();
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
        for file in libraries.chain([program]) {
            let to = self.path.join(file.strip_prefix("/").context("not an absolute path")?);
            if !to.exists() {
                fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
                fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// Copies test programs and gives the job that runs them.
    fn tests(&self, filter: Option<&str>) -> anyhow::Result<String> {
        let packages = CRATES.iter().flat_map(|name| ["-p", name]);
        let programs = test::build_tests(&packages.chain(["--tests"]).collect::<Vec<_>>())?;
        let object = workspace::root().join("target/bpf/shoal.bpf.o");
        self.copy(&object)?;
        let mut job = format!("export RUST_BACKTRACE=1 SHOAL_BPF_OBJECT={}\n", object.display());
        for TestProgram { name, executable, folder, .. } in &programs {
            self.copy(executable)?;
            fs::create_dir_all(self.path.join(folder.strip_prefix("/")?))?;
            job += &format!(
                "echo; echo '── {name}'\n(cd {} && {} {}) || failed=$((failed + 1))\n",
                folder.display(),
                executable.display(),
                filter.unwrap_or_default(),
            );
        }
        Ok(job)
    }

    /// Copies our programs and the docker client and gives the job that runs the demo.
    fn demo(&self) -> anyhow::Result<String> {
        let target = workspace::target().join("debug");
        for name in ["shoal", "shoal-demo", "shoal-guardian"] {
            self.copy(&target.join(name))?;
        }
        let docker = docker::client()?;
        self.copy(&docker)?;
        let demo = target.join("shoal-demo");
        Ok(format!("SHOAL_DOCKER={} {} || failed=1\n", docker.display(), demo.display()))
    }
}

/// Packs a first file system, which loads the modules for the disk and goes on from it.
fn initrd(kernel: &Kernel, folder: &Path) -> anyhow::Result<PathBuf> {
    let root = folder.join("initrd.root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for name in ["bin", "dev", "mnt"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy(process::find("busybox").context("there is no busybox")?, root.join("bin/busybox"))?;
    let mut init =
        "#!/bin/busybox sh\nexport PATH=/bin\nbusybox mount -t devtmpfs dev /dev\n".to_owned();
    let mut seen = BTreeSet::new();
    for module in ROOT_MODULES {
        // One line a file, what it needs first; built-in ones are other lines.
        let mut modprobe = Command::new("/usr/sbin/modprobe");
        modprobe.args(["--show-depends", "--set-version", &kernel.release, "-d"]);
        for line in process::output(modprobe.arg(folder.join("root")).arg(module))?.lines() {
            let Some(file) = line.strip_prefix("insmod ").map(|path| Path::new(path.trim())) else {
                continue;
            };
            let name = file.file_name().context("a module has a name")?.to_string_lossy();
            if seen.insert(name.clone().into_owned()) {
                fs::copy(file, root.join(&*name))?;
                init += &format!("busybox insmod /{name}\n");
            }
        }
    }
    init += "busybox mount -t ext4 /dev/vda /mnt && exec busybox switch_root /mnt /init\n";
    fs::write(root.join("init"), init)?;
    process::run(Command::new("chmod").arg("755").arg(root.join("init")))?;
    let packed = folder.join("initrd");
    let pack = "find . | cpio -o -H newc --quiet -R 0:0 > \"$1\"";
    process::run(Command::new("sh").current_dir(&root).args(["-c", pack, "sh"]).arg(&packed))?;
    Ok(packed)
}

/// Runs the machine, shows what it says, and believes its last word.
fn boot(kernel: &Kernel, initrd: &Path, disk: &Path) -> anyhow::Result<()> {
    let image = kernel.folder.join("boot").join(format!("vmlinuz-{}", kernel.release));
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none"])
        .args(["-no-reboot", "-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()));
    println!("Booting Linux {} without KVM: slow.", kernel.release);
    let mut machine = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut failed = None;
    for line in BufReader::new(machine.stdout.take().expect("it is piped")).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        match line.strip_prefix(END) {
            Some(end) => failed = end.parse::<u32>().ok(),
            None => println!("{line}"),
        }
    }
    let status = machine.wait()?;
    match failed {
        Some(0) => Ok(()),
        Some(n) => bail!("{n} failed on Linux {}", kernel.release),
        None => bail!("the virtual machine ended without a result ({status}): see above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_with_the_greatest_numbers() {
        let mut names = [
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-47-cloud-amd64",
        ];
        names.sort_by_key(|name| numbers(name));
        assert_eq!(names[2], "linux-image-6.1.0-56-cloud-amd64");
        let backports = "linux-image-6.12.117+deb12-cloud-amd64";
        assert!(numbers(backports) > numbers("linux-image-6.12.9+deb12-cloud-amd64"));
    }
}
