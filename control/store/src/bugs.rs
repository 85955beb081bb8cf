//! Bugs that can be switched on, so that the tests on a simulated network can prove that they find their like.
//!
//! In the product [`active`] is `false` at compile time and nothing can change that: shoal-store does not even
//! have the feature `seeded-bugs`. Those tests build this source once more, as a package of its own
//! (`tests/raft/store`), which has it.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A mistake somebody could make.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[cfg_attr(
            not(feature = "seeded-bugs"),
            expect(unreachable_pub, reason = "public in the simulation's build alone")
        )]
        pub enum Bug { $($(#[$doc])* $name,)* }

        /// All of them.
        #[cfg(feature = "seeded-bugs")]
        impl Bug {
            /// In the order of their list.
            pub const ALL: &[Bug] = &[$(Bug::$name,)*];
        }
    };
}

bugs! {
    /// A leader takes silence of another manager for its consent.
    SkipQuorum,
    /// A follower confirms entries that are not on its disk yet.
    AckBeforeFsync,
    /// A leader applies, and so acknowledges, what is not on its own disk yet.
    ApplyBeforeFsync,
    /// A leader tells others that an entry is committed that is not on its own disk yet.
    TellBeforeFsync,
    /// A manager forgets after a restart whom it gave its vote.
    ForgetVote,
    /// A leader that restarts leads on in the term it led before.
    LeadOn,
    /// The newest entry is not found at a restart.
    LoseLast,
    /// What was written and not flushed when the power went is taken for whole.
    AcceptTornTail,
    /// Which snapshot counts is not written down.
    ForgetSnapshot,
    /// A leader answers reads without asking whether it still leads.
    ReadStale,
    /// Proposals that share an entry are applied in another order than they were made.
    Reorder,
}

/// Whether the bug is switched on.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) const fn active(_: Bug) -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use crate::outside::has as active;
