//! Every program loads.
use aya::programs::Program;

#[test]
fn every_program_is_accepted_by_the_verifier() {
    let mut object = shoal_packet_tests::load();
    let mut names = vec![];
    for (name, program) in object.programs_mut() {
        let loaded = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            _ => panic!("{name} is of no known type"),
        };
        loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
        names.push(name.to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "from_container",
            "from_overlay",
            "from_uplink",
            "vip_connect4",
            "vip_connect6",
            "vip_getpeername4",
            "vip_getpeername6",
            "vip_recvmsg4",
            "vip_recvmsg6",
            "vip_release",
            "vip_sendmsg4",
            "vip_sendmsg6",
        ]
    );
}
