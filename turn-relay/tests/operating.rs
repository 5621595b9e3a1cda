//! What an operator meets: errors in one line, exit codes, signals.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Service, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::net::UdpSocket;

/// Exit code and standard error of a relay that does not start.
fn fails(args: &[&str]) -> (i32, String) {
    let output = command(args).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = error.lines().filter(|l| l.starts_with("error")).collect();
    let [line] = lines[..] else {
        panic!("one line, not {error}");
    };
    (output.status.code().unwrap(), line.to_owned())
}

#[test]
fn a_wrong_flag_is_named_with_its_value_and_what_would_be_right() {
    let user = ["--user", "a:b"];
    let relay = ["--relay-address", "127.0.0.1"];
    let cases: [(&[&str], &[&str]); 11] = [
        (
            &["--listen", "127.0.0.1:1"],
            &["`--listen`", "127.0.0.1:1", "udp://"],
        ),
        (&["--listen", "tcp://127.0.0.1:1"], &["only udp"]),
        (
            &["--listen", "udp://127.0.0.1"],
            &["not an address and port"],
        ),
        (
            &["--allow-peer", "10.0.0.5/24"],
            &[
                "`--allow-peer`",
                "10.0.0.5/24",
                "10.0.0.0/24",
                "10.0.0.5/32",
            ],
        ),
        (&["--allow-peer", "ten"], &["`ten`", "CIDR"]),
        (
            &["--port-range", "60000-50000"],
            &["`--port-range`", "LO-HI"],
        ),
        (
            &["--relay-address", "0.0.0.0"],
            &["`--relay-address`", "0.0.0.0"],
        ),
        (
            &[
                "--external-address",
                "192.0.2.1",
                "--external-address",
                "192.0.2.2",
            ],
            &["`--external-address`", "2 for 1"],
        ),
        (&["--admin", "9101"], &["`--admin`", "ADDR:PORT"]),
        (&["--user", "nopassword"], &["`--user`", "NAME:PASSWORD"]),
        (&["--realm", ""], &["`realm`"]),
    ];
    for (args, expected) in cases {
        let all = [&user[..], &relay[..], args].concat();
        let (code, line) = fails(&all);
        assert_eq!(code, 64, "{line}");
        for part in expected {
            assert!(line.contains(part), "{line} should contain {part}");
        }
        assert!(!line.contains("nopassword"));
    }
}

#[test]
fn a_relay_for_nobody_and_a_relay_without_address_do_not_start() {
    let (code, line) = fails(&[]);
    assert_eq!(code, 64);
    assert!(line.contains("nobody could log in"), "{line}");
    let (code, line) = fails(&["--user", "a:b"]);
    assert_eq!(code, 64);
    assert!(
        line.contains("relay-addresses") && line.contains("0.0.0.0"),
        "{line}"
    );
}

#[test]
fn an_error_in_the_config_file_names_file_line_and_field() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "realm = \"west\"\nallow-peers = [\"10.0.0.5/24\"]").unwrap();
    writeln!(
        file,
        "relay-addresses = [\"127.0.0.1\"]\nusers-file = \"/dev/null\""
    )
    .unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let (code, line) = fails(&["--config", &path]);
    assert_eq!(code, 64);
    assert!(line.contains("/dev/null"), "{line}");
    let (code, line) = fails(&["--config", "/nowhere.toml"]);
    assert_eq!(code, 64);
    assert!(line.contains("/nowhere.toml"), "{line}");

    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "realm = \"west\"\nallow-peer = [\"10.0.0.0/24\"]").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let (code, line) = fails(&["--config", &path]);
    assert_eq!(code, 64);
    assert!(line.contains(&format!("{path}:2:")), "{line}");
    assert!(line.contains("did you mean `allow-peers`?"), "{line}");

    let users = {
        let mut users = tempfile::NamedTempFile::new().unwrap();
        writeln!(users, "# who\nalice:wonderland").unwrap();
        users
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "relay-addresses = [\"127.0.0.1\"]\nusers-file = {:?}",
        users.path()
    )
    .unwrap();
    writeln!(file, "allow-peers = [\"10.0.0.0/24\", \"10.0.0.5/24\"]").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let (code, line) = fails(&["--config", &path]);
    assert_eq!(code, 64);
    assert!(line.contains(&format!("{path}:3:")), "{line}");
    assert!(line.contains("10.0.0.5/24"), "{line}");
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_1() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", taken.local_addr().unwrap());
    let (code, line) = fails(&["--user", "a:b", "--listen", &address]);
    assert_eq!(code, 1);
    assert!(line.contains("in use"), "{line}");
    assert!(
        line.contains(&taken.local_addr().unwrap().to_string()),
        "{line}"
    );
}

#[test]
fn an_address_that_the_machine_does_not_have_is_named() {
    for (field, flags) in [
        ("listen", ["--listen", "udp://192.0.2.77:3478"]),
        ("relay-addresses", ["--relay-address", "192.0.2.77"]),
    ] {
        let listen = ["--user", "a:b", "--listen", "udp://127.0.0.1:0"];
        let all = [&listen[..], &flags].concat();
        let (code, line) = fails(&all);
        assert_eq!(code, 1);
        assert!(line.contains(&format!("`{field}`")), "{line}");
        assert!(
            line.contains("192.0.2.77") && line.contains("does not have"),
            "{line}"
        );
    }
}

#[test]
fn a_second_relay_does_not_share_the_port_of_the_first() {
    let first = Service::start(&["--listen", "udp://127.0.0.1:0"]);
    let address = format!("udp://{}", first.listen[0]);
    let (code, line) = fails(&["--user", "a:b", "--listen", &address]);
    assert_eq!(code, 1);
    assert!(line.contains("in use"), "{line}");
}

#[test]
fn told_to_stop_it_stops_with_exit_code_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut service = Service::start(&["--listen", "udp://127.0.0.1:0"]);
        let pid = Pid::from_raw(service.child.id() as i32);
        kill(pid, signal).unwrap();
        assert_eq!(service.child.wait().unwrap().code(), Some(0));
        assert!(service.log().contains("stopped"));
    }
}
