//! Giving up privileges. In a thread of its own: capabilities belong to threads.

#![allow(clippy::unwrap_used)]

use caps::{CapSet, Capability};
use turnpike_service_kit::drop_capabilities;

#[test]
fn only_what_is_kept_remains_and_nothing_comes_back() {
    let checked = std::thread::spawn(|| {
        let had = caps::read(None, CapSet::Permitted).unwrap();
        drop_capabilities(&[Capability::CAP_NET_ADMIN]).unwrap();
        let expected = had.contains(&Capability::CAP_NET_ADMIN);
        for set in [CapSet::Permitted, CapSet::Effective] {
            let now = caps::read(None, set).unwrap();
            assert!(
                now.iter()
                    .all(|capability| *capability == Capability::CAP_NET_ADMIN),
                "{now:?}"
            );
            assert_eq!(!now.is_empty(), expected);
        }
        assert!(nix::sys::prctl::get_no_new_privs().unwrap());
        assert!(caps::raise(None, CapSet::Permitted, Capability::CAP_SYS_ADMIN).is_err());

        // A program started from here gets no more, even as root.
        let status = std::process::Command::new("cat")
            .arg("/proc/self/status")
            .output()
            .unwrap();
        let status = String::from_utf8(status.stdout).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("CapEff:"))
            .unwrap();
        let effective = u64::from_str_radix(line["CapEff:".len()..].trim(), 16).unwrap();
        assert_eq!(
            effective & !Capability::CAP_NET_ADMIN.bitmask(),
            0,
            "{line}"
        );
    });
    checked.join().unwrap();
}
