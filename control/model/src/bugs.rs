//! Bugs that can be switched on, so that the simulator can prove that it finds their like.
//!
//! In the product [`active`] is `false` at compile time and nothing can change that: shoal-model does
//! not even have the feature `seeded-bugs`. The simulator builds this source once more, as a package
//! of its own (`tests/simulator/model`), which has it.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A mistake somebody could make.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug { $($(#[$doc])* $name,)* }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$name,)*];

            /// Its name, as in this list.
            pub fn name(self) -> &'static str {
                match self { $(Bug::$name => stringify!($name),)* }
            }
        }
    };
}

bugs! {
    // The replicated log and its disk, as the simulator models them.
    /// A leader counts an entry as committed as soon as it has it itself.
    SkipQuorum,
    /// A manager acknowledges entries that are not on disk yet.
    AckBeforeFsync,
    /// A manager forgets after a restart whom it gave its vote.
    ForgetVote,
    /// A manager votes for a candidate whose log lacks what its own has.
    ElectStaleLog,
    /// A manager takes entries from a leader of an earlier term.
    ObeyStaleLeader,
    /// A follower applies two entries in the wrong order.
    ApplyOutOfOrder,
    /// A record torn by a power failure is taken for a whole one.
    AcceptTornTail,
    /// A write is acknowledged to the client when it is proposed, not when it is applied.
    AckBeforeCommit,
    /// A snapshot is installed over a newer state.
    InstallOldSnapshot,

    // The state.
    /// A change is applied whatever version it was made from.
    IgnoreVersion,
    /// A secret is removed that a service refers to.
    RemoveUsed,

    // The cores.
    /// The address of a task that was told to stop is given at once to another.
    ReuseAddress,
    /// A published port is given to a second service.
    SharePort,
    /// A service that publishes another port keeps the one before, too.
    KeepPort,
    /// The most replicas of a service that a node may have are not looked at.
    ForgetMaxReplicas,
    /// What a stopping task reserves counts as free.
    FreeReservationsEarly,
    /// Placement constraints are not looked at.
    SkipConstraints,
    /// A task stays on a node whose labels do not suit it any more.
    LeaveUnsuited,
    /// A node that is drained gets tasks.
    IgnoreDrain,
    /// A replacement starts while its predecessor still runs.
    StartBeforeStop,
    /// An update replaces more slots at a time than it may.
    ExceedParallelism,
    /// With `start-first` the old task is stopped before the new one runs.
    StopFirstAlways,
    /// A task that failed is followed without the delay of its restart policy.
    RestartAtOnce,
    /// The task of a node that is down is retired and not followed by another.
    LoseTask,
    /// A slot that has a task is given a second one.
    DoubleSlot,
    /// A global service keeps its task on a node that is drained.
    KeepOnDrained,
    /// A global service makes no task on a node that has none.
    SkipNode,
    /// A job has more tasks under way than it may.
    ExceedConcurrent,
    /// What a job has done is run again.
    RunAgain,
    /// An update goes on whatever fails.
    IgnoreFailures,
    /// What fails too often is rolled back whatever was asked for, a rollback too.
    RollBackTwice,
    /// A host port is given to a second task of the node.
    ShareHostPort,
    /// More of a generic resource is given away than a node has.
    OvercommitGeneric,
    /// Ended tasks are never removed.
    KeepHistory,
    /// A task told to stop stays in the tables as a backend.
    KeepBackend,
    /// A report may set a task's state back.
    StateGoesBack,
    /// A report about another node's task is taken.
    ForeignReport,
    /// A node is told of networks it has nothing on.
    TellAllNetworks,
    /// A node is told all nodes, though none but those it shares a network with would send to it.
    TellAllPeers,
    /// A peer is taken from the nodes of a network with its first task there that ends, though a second is
    /// heard of.
    TakeSharedPeer,
    /// What changes while a new leader reads its tables is not looked at again.
    OverlookWhileReading,
    /// A new leader's orchestrator looks at the first of all there is, and not at the rest.
    LookAtTheFirst,
    /// A node is told of secrets that tasks of other nodes use.
    TellAllSecrets,
    /// A node is told of a secret for as long as there is one, though the last task there that used it
    /// has ended.
    KeepSecret,
    /// A secret is taken from a node with the first task that used it, though a second does.
    TakeSharedSecret,
    /// A node that comes back is not told again what secrets its tasks use.
    KeepBackSecrets,
    /// A task is moved where nodes differ by one alone.
    MoveForNothing,
    /// A rotation of the root ends though a node that is down has not renewed.
    EndRotationEarly,
    /// What was wanted and refused is not looked at again.
    ForgetRefused,
    /// Services are not looked at when a node changes on which they have tasks.
    OverlookNode,
    /// A node that is silent is never noticed.
    DeafToSilence,

    // Certificates, as the simulator models them.
    /// A node that was removed is let in.
    TrustRemovedNode,
    /// A worker's certificate does for a manager's.
    AcceptWorker,
    /// A node that was demoted is obeyed as long as its certificate says that it is a manager.
    ObeyDemoted,
    /// A node keeps the certificate of the role it had.
    KeepRole,
    /// A certificate is not renewed before it ends.
    NeverRenew,
    /// A node trusts the next root alone as soon as it hears of it.
    TrustTooSoon,

    // The agent, as the simulator models it.
    /// A table of an older generation replaces a newer one.
    TakeOldTable,
    /// A report that was lost with its session is not sent again.
    DropReport,
    /// A container whose task is no longer assigned is left running.
    LeaveContainer,
    /// Secrets are written with the assignment.
    WriteSecrets,
    /// A task is started without what it refers to, if that was not told.
    StartWithout,
}

/// Whether the bug is switched on.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub const fn active(_: Bug) -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
pub use switch::{active, with};

#[cfg(feature = "seeded-bugs")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        // Of the thread, so that one simulation's bug does not reach another's.
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether the bug is switched on in this thread.
    pub fn active(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }

    /// Runs `f` with one bug switched on.
    pub fn with<R>(bug: Bug, f: impl FnOnce() -> R) -> R {
        /// Switches it off however `f` ends.
        struct Off;
        impl Drop for Off {
            fn drop(&mut self) {
                ACTIVE.set(None);
            }
        }
        ACTIVE.set(Some(bug));
        let _off = Off;
        f()
    }
}
