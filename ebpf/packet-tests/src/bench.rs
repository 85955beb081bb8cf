//! One packet program under `BPF_PROG_TEST_RUN`.
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use shoal_maps::{DROP_REASONS, DropReason};

use crate::{Frame, Tables, ip, system};

/// The program left the packet to those after it (`TCX_NEXT`).
pub const PASS: i32 = -1;
/// The program dropped the packet (`TC_ACT_SHOT`).
pub const SHOT: i32 = 2;
/// The program sent the packet elsewhere (`TC_ACT_REDIRECT`).
pub const REDIRECT: i32 = 7;
/// Offset of `ifindex` in `struct __sk_buff`, and the length of that.
const IFINDEX: usize = 40;
const SK_BUFF: usize = 192;

/// What a program did with a packet.
#[derive(Debug)]
pub struct Verdict {
    /// What it told the kernel.
    pub action: i32,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
}

impl Verdict {
    /// The packet after a redirect.
    ///
    /// # Panics
    ///
    /// When there was none, or the packet is broken.
    pub fn redirected(&self) -> Frame {
        assert_eq!(self.action, REDIRECT, "not redirected");
        Frame::from_ethernet(&self.bytes)
    }
}

/// A program, its tables and two interfaces to be the containers' host sides.
pub struct Bench {
    /// The tables.
    pub tables: Tables,
    program: &'static str,
    /// Interface the packets come by.
    pub ifindex: u32,
    /// Another one.
    pub other: u32,
}

impl Bench {
    /// Loads the program in the calling thread's namespace.
    ///
    /// # Panics
    ///
    /// When it does not load.
    pub fn new(program: &'static str) -> Bench {
        ip("link add one type veth peer name two");
        let mut tables = Tables::new();
        let loaded: &mut SchedClassifier =
            tables.object.program_mut(program).expect("a program").try_into().expect("tcx");
        loaded.load().unwrap_or_else(|error| panic!("{program}: {error}"));
        Bench { tables, program, ifindex: system::ifindex("one"), other: system::ifindex("two") }
    }

    /// Runs the program on a packet.
    pub fn run(&mut self, frame: &Frame) -> Verdict {
        self.run_bytes(&frame.ethernet())
    }

    /// Runs the program on bytes from the Ethernet header on.
    ///
    /// # Panics
    ///
    /// When the kernel refuses the run.
    pub fn run_bytes(&mut self, bytes: &[u8]) -> Verdict {
        let program: &SchedClassifier =
            self.tables.object.program(self.program).expect("a program").try_into().expect("tcx");
        let mut context = [0; SK_BUFF];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&self.ifindex.to_ne_bytes());
        let mut out = vec![0; 4_096];
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(bytes),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .unwrap_or_else(|error| panic!("test run: {error:?}"));
        out.truncate(result.data_size_out as usize);
        Verdict { action: result.return_value as i32, bytes: out }
    }

    /// Runs the program on a packet that must be dropped and counted, for this reason only.
    pub fn expect_drop(&mut self, frame: &Frame, reason: DropReason) {
        self.expect_drop_bytes(&frame.ethernet(), reason);
    }

    /// The same on bytes.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn expect_drop_bytes(&mut self, bytes: &[u8], reason: DropReason) {
        let before = self.drops();
        let verdict = self.run_bytes(bytes);
        let after = self.drops();
        let counted: Vec<_> = DROP_REASONS
            .iter()
            .zip(before.iter().zip(&after))
            .filter(|(_, (before, after))| before != after)
            .map(|((reason, _), _)| *reason)
            .collect();
        assert_eq!((verdict.action, counted), (SHOT, vec![reason]));
    }

    /// Runs the program on a packet that must pass as it came, uncounted.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn expect_pass(&mut self, bytes: &[u8]) {
        let before = self.drops();
        let verdict = self.run_bytes(bytes);
        assert_eq!((verdict.action, &verdict.bytes[..]), (PASS, bytes));
        assert_eq!(before, self.drops(), "a passed packet was counted as dropped");
    }

    fn drops(&mut self) -> Vec<u64> {
        DROP_REASONS.iter().map(|(reason, _)| self.tables.dropped(*reason)).collect()
    }
}
