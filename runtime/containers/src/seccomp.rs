//! The system calls a container may make, as data. Everything not named fails with EPERM.
//!
//! Left out on purpose, unless a capability allows it: mounting and namespaces, modules, kexec, BPF,
//! perf, key rings, ptrace-like reading of other processes through old doors, the clock, swap, raw
//! I/O ports, `userfaultfd`, `io_uring` (its operations pass by any filter), NUMA steering, obsolete
//! calls. `clone` may not make namespaces and `clone3`, whose flags no filter can read, is told not to
//! exist (ENOSYS), so that C libraries fall back to `clone`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Files, folders, descriptors.
const FILES: &str = "access chdir chmod chown chown32 close close_range copy_file_range creat dup \
    dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod \
    fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 \
    futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat \
    llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 memfd_create mkdir mkdirat mknod \
    mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 \
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat \
    rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs \
    statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink \
    unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev cachestat statmount \
    listmount file_getattr file_setattr";

/// Waiting for descriptors, asynchronous I/O.
const EVENTS: &str = "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
    epoll_wait epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 select \
    _newselect signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64";

/// Memory.
const MEMORY: &str = "brk madvise map_shadow_stack membarrier memfd_secret mincore mlock mlock2 \
    mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
    pkey_mprotect process_madvise process_mrelease remap_file_pages";

/// Processes, threads, signals, identities.
const PROCESSES: &str = "alarm arch_prctl capget capset execve execveat exit exit_group fork futex \
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake getegid getegid32 geteuid geteuid32 \
    getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getresgid getresgid32 \
    getresuid getresuid32 get_robust_list getsid gettid get_thread_area getuid getuid32 kill \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr \
    lsm_list_modules lsm_set_self_attr pause pidfd_open pidfd_send_signal prctl prlimit64 ptrace \
    process_vm_readv process_vm_writev restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
    setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid \
    setreuid32 set_robust_list setsid set_thread_area set_tid_address setuid setuid32 sigaltstack \
    sigprocmask sigreturn tgkill tkill uretprobe vfork wait4 waitid waitpid";

/// Scheduling, limits, time, random numbers, what the system is.
const SYSTEM: &str = "clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 getcpu getitimer getpriority getrandom getrlimit getrusage gettimeofday \
    ioprio_get ioprio_set nanosleep sched_getaffinity sched_getattr sched_getparam \
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
    sched_yield setitimer setpriority setrlimit sysinfo time timer_create timer_delete \
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times ugetrlimit \
    uname adjtimex clock_adjtime clock_adjtime64";

/// Sockets (`socket` itself is below) and System V and POSIX IPC.
const SOCKETS_AND_IPC: &str = "accept accept4 bind connect getpeername getsockname getsockopt ipc \
    listen mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg \
    sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair";

/// What a capability allows besides.
const BY_CAPABILITY: [(&str, &str); 12] = [
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount \
         mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
];

/// `CLONE_NEW*`: cgroup, UTS, IPC, user, PID, network, mount, time is not reachable by `clone`.
const NAMESPACE_FLAGS: u64 =
    0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000 | 0x2_0000;
/// Execution domains that are harmless: Linux, Linux without randomisation of 32-bit, UNAME26, "ask".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// `AF_VSOCK` reaches the hypervisor, past any network namespace.
const AF_VSOCK: u64 = 40;
/// "Function not implemented" on every architecture we run on.
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The filter of a container with these capabilities, as the `linux.seccomp` object of its
/// configuration.
pub(crate) fn profile(capabilities: &BTreeSet<String>) -> Value {
    let admin = capabilities.contains("CAP_SYS_ADMIN");
    let mut allowed: BTreeSet<&str> = [FILES, EVENTS, MEMORY, PROCESSES, SYSTEM, SOCKETS_AND_IPC]
        .iter()
        .flat_map(|group| group.split_whitespace())
        .collect();
    for (capability, calls) in BY_CAPABILITY {
        if capabilities.contains(capability) {
            allowed.extend(calls.split_whitespace());
        }
    }
    let mut rules = vec![json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" })];
    rules.push(json!({
        "names": ["socket"], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE" }],
    }));
    for value in PERSONALITIES {
        rules.push(json!({
            "names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }],
        }));
    }
    if !admin {
        // libcontainer 0.7 takes the mask from `valueTwo` and the wanted result from `value`, the other
        // way round than the specification. A filter that was wrong here would refuse every fork.
        rules.push(json!({
            "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{
                "index": 0, "value": 0, "valueTwo": NAMESPACE_FLAGS, "op": "SCMP_CMP_MASKED_EQ",
            }],
        }));
        rules.push(json!({
            "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS,
        }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

/// The host's own and the 32-bit one it also runs.
fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &["SCMP_ARCH_NATIVE"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unconditional(caps: &[&str]) -> BTreeSet<String> {
        let caps = caps.iter().map(|c| (*c).to_owned()).collect();
        serde_json::from_value(profile(&caps)["syscalls"][0]["names"].clone()).unwrap()
    }

    #[test]
    fn the_dangerous_calls_are_not_allowed_by_default() {
        let allowed = unconditional(&["CAP_NET_RAW"]);
        for call in "mount umount2 unshare setns pivot_root bpf perf_event_open kexec_load keyctl \
            add_key request_key init_module finit_module open_by_handle_at userfaultfd io_uring_setup \
            io_uring_enter reboot swapon ioperm iopl settimeofday move_mount fsopen clone clone3 \
            personality socket move_pages lookup_dcookie nfsservctl sysfs _sysctl uselib ustat vm86"
            .split_whitespace()
        {
            assert!(!allowed.contains(call), "{call}");
        }
        assert!(allowed.contains("execve") && allowed.contains("futex"));
    }

    #[test]
    fn a_capability_opens_its_own_calls_only() {
        assert!(unconditional(&["CAP_SYS_CHROOT"]).contains("chroot"));
        assert!(!unconditional(&["CAP_SYS_CHROOT"]).contains("mount"));
        assert!(unconditional(&["CAP_SYS_ADMIN"]).contains("mount"));
    }
}
