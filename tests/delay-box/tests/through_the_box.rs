//! The real program between two namespaces: what the kernel sends into it comes out at the other side, later.
#![allow(clippy::unwrap_used)]
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use lab::netns;

/// Three namespaces, `left` and `right` joined by the box in the middle; gone when this is.
struct Wired {
    name: &'static str,
    middle: Child,
}

impl Wired {
    fn up(name: &'static str, arguments: &[&str]) -> Self {
        let names = names(name);
        remove(name);
        for namespace in &names {
            netns::create(namespace).unwrap();
        }
        let [left, middle, right] = &names;
        for (end, port, last) in [(left, "left", "1"), (right, "right", "2")] {
            ip(&[
                "link", "add", "wire", "netns", end, "type", "veth", "peer", port, "netns", middle,
            ]);
            let address = format!("198.51.100.{last}/24");
            ip(&["-n", end, "address", "add", &address, "dev", "wire"]);
            ip(&["-n", end, "link", "set", "wire", "up"]);
            ip(&["-n", middle, "link", "set", port, "up"]);
            let off = ["tx", "off", "tso", "off", "gso", "off"];
            let ethtool = ["netns", "exec", end, "ethtool", "-K", "wire"];
            ip(&[&ethtool[..], &off].concat());
        }
        let mut child = Command::new("ip")
            .args(["netns", "exec", middle, env!("CARGO_BIN_EXE_delay-box")])
            .args(["left", "right"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        Self {
            name,
            middle: child,
        }
    }

    fn at_left(&self, command: &[&str]) -> Output {
        let output = Command::new("ip")
            .args(["netns", "exec", &names(self.name)[0]])
            .args(command)
            .output();
        output.unwrap()
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        let _ = self.middle.kill();
        let _ = self.middle.wait();
        remove(self.name);
    }
}

fn names(name: &str) -> [String; 3] {
    ["left", "middle", "right"].map(|host| netns::name(name, host))
}

fn remove(name: &str) {
    for namespace in netns::list(&netns::prefix(name)).unwrap() {
        netns::delete(&namespace).unwrap();
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {output:?}");
}

/// Milliseconds of each ping that came back.
fn round_trips(output: &Output) -> Vec<f64> {
    let said = String::from_utf8_lossy(&output.stdout);
    let times = said.lines().filter_map(|line| line.split(" time=").nth(1));
    times
        .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn every_ping_takes_the_delay_of_both_directions() {
    let wired = Wired::up("dbdelay", &["--delay", "15ms"]);
    let output = wired.at_left(&["ping", "-n", "-c", "20", "-i", "0.01", "198.51.100.2"]);
    let times = round_trips(&output);
    assert_eq!(times.len(), 20, "{output:?}");
    // A frame may go out a grain early.
    assert!(times.iter().all(|&ms| ms >= 29.8), "{times:?}");
}

#[test]
fn a_share_of_the_pings_is_lost() {
    let wired = Wired::up("dbloss", &["--loss", "0.3", "--seed", "5"]);
    // Addresses are resolved through the same wire.
    let answered = || {
        !round_trips(&wired.at_left(&["ping", "-n", "-c", "1", "-W", "1", "198.51.100.2"]))
            .is_empty()
    };
    assert!((0..20).any(|_| answered()));
    let output = wired.at_left(&[
        "ping",
        "-n",
        "-c",
        "300",
        "-i",
        "0.002",
        "-W",
        "1",
        "198.51.100.2",
    ]);
    let back = round_trips(&output).len();
    // 0.7 of them get there, and 0.7 of those back.
    assert!((100..200).contains(&back), "{back} of 300");
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_delay-box"))
        .args(["nowhere0", "lo"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no interface `nowhere0`"));
}
