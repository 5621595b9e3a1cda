//! docs/first-hour.md, followed to the letter: its shell blocks, one after the other, on a machine that has nothing of ours.
use std::env;
use std::process::{Command, Stdio};

const GUIDE: &str = include_str!("../../../docs/first-hour.md");

/// A machine to itself: no network, no process, no file of ours is there before, and nothing is left behind.
const MACHINE: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/upper /run/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work overlay /etc
mount -t tmpfs tmpfs /var/lib
set -eu
eval "$1"
"#;

/// Its blocks in the language `sh`, each with a line before it that is printed.
fn steps() -> String {
    let mut script = String::new();
    for (number, block) in GUIDE.split("\n```sh\n").skip(1).enumerate() {
        let block = block.split("\n```").next().unwrap_or_default();
        script += &format!("echo '== {number}'\n{block}\n");
    }
    script
}

#[test]
fn whoever_follows_the_first_hour_gets_what_it_says() {
    let binaries = env::var("TURNPIKE_BIN_DIR").expect("TURNPIKE_BIN_DIR");
    let path = format!("{binaries}:{}", env::var("PATH").expect("a PATH"));
    let alone = "--net --mount --pid --fork --kill-child --mount-proc";
    let output = Command::new("timeout")
        .args(["180", "unshare"])
        .args(alone.split(' '))
        .args(["bash", "-c", MACHINE, "first-hour", &steps()])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    let all = format!("{said}\n-- standard error:\n{complaints}");
    assert!(output.status.success(), "{}: {all}", output.status);
    // Each part gets ready; then what the guide promises, in its order.
    assert_eq!(said.matches("ready\n").count(), 5, "{all}");
    let mut rest = &*said;
    for promised in [
        "the orders of east",
        "orders.east works: TCP 8080",
        "relay/udp",
        "FOOTHOLDS",
        "orders.pcap",
        "200\n",
        "\"networks\":[{\"name\":\"east\"",
        "nothing listening on TCP port 8080",
    ] {
        let found = rest.find(promised);
        let found = found.unwrap_or_else(|| panic!("no `{promised}` (any more): {all}"));
        rest = &rest[found..];
    }
}
