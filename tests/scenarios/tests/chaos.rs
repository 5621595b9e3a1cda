//! Five networks, constant traffic between all of them, and a minute of what may happen: everything heals, nothing goes
//! to the wrong place, nobody complains or grows. `cargo xtask chaos` does it for longer.
use std::time::Duration;

use lab::chaos::Chaos;
use scenarios::options;

#[test]
fn five_networks_outlive_a_minute_of_kills_cuts_and_forgotten_mappings() {
    let chaos = Chaos {
        seed: 1,
        length: Duration::from_secs(60),
        // A deadline: how long it takes is for a machine that has nothing else to do.
        heals_within: Duration::from_secs(60),
        evidence: std::env::temp_dir().join("turnpike-chaos-scenario"),
    };
    let report = chaos.run(&options("chaos1"), &mut |line| eprintln!("{line}"));
    let report = report.expect("the networks come up, and things happen to them");
    eprintln!("{}\n{}", report.table(), report.usage);
    assert!(!report.rows.is_empty(), "nothing happened");
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
}
