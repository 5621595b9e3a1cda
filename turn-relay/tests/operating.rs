//! What an operator meets: errors in one line, exit codes, signals.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{Service, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use stream::Certificate;

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
        (
            &["--listen", "sctp://127.0.0.1:1"],
            &["only udp, tcp, tls and dtls"],
        ),
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
fn a_tls_listener_without_a_certificate_that_it_can_use_says_which_file_and_what_to_do() {
    let good = Certificate::new();
    let other = Certificate::new();
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_str().unwrap().to_owned();
    let certificate = good.path("certificate.pem");
    let key = good.path("key.pem");
    let cases: [(&[&str], &[&str]); 7] = [
        (
            &[],
            &["`certificate-file`", "tls://127.0.0.1:0 needs it", "PEM"],
        ),
        (
            &["--certificate-file", &certificate],
            &["`key-file`", "tls://127.0.0.1:0 needs it", "key"],
        ),
        (
            &["--certificate-file", "/nowhere.pem", "--key-file", &key],
            &["`certificate-file`", "/nowhere.pem", "check path"],
        ),
        (
            &[
                "--certificate-file",
                &certificate,
                "--key-file",
                "/nowhere.pem",
            ],
            &["`key-file`", "/nowhere.pem", "check path"],
        ),
        (
            &["--certificate-file", &key, "--key-file", &key],
            &["`certificate-file`", &key, "no certificate in it"],
        ),
        (
            &[
                "--certificate-file",
                &certificate,
                "--key-file",
                &certificate,
            ],
            &[
                "`key-file`",
                &certificate,
                "no private key",
                "not encrypted",
            ],
        ),
        (
            &[
                "--certificate-file",
                &certificate,
                "--key-file",
                &other.path("key.pem"),
            ],
            &[
                "`key-file`",
                &other.path("key.pem"),
                "not the key of",
                &certificate,
            ],
        ),
    ];
    for (args, expected) in cases {
        let base = ["--user", "a:b", "--listen", "tls://127.0.0.1:0"];
        let (code, line) = fails(&[&base[..], args].concat());
        assert_eq!(code, 64, "{line}");
        for part in expected {
            assert!(line.contains(part), "{line} should contain {part}");
        }
    }
    let base = ["--user", "a:b", "--listen", "tls://127.0.0.1:0"];
    let files = ["--certificate-file", &empty, "--key-file", &key];
    let (code, line) = fails(&[&base[..], &files].concat());
    assert_eq!(code, 64);
    assert!(line.contains(&empty), "{line}");
}

#[test]
fn a_key_that_others_can_read_is_complained_about() {
    use std::os::unix::fs::PermissionsExt;
    let certificate = Certificate::new();
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(certificate.path("key.pem"), mode).unwrap();
    let flags = certificate.flags();
    let mut args = vec!["--listen", "tls://127.0.0.1:0"];
    args.extend(flags.iter().map(String::as_str));
    let service = Service::start(&args);
    let log = service.log();
    assert!(
        log.contains("others can read this secret") && log.contains("key.pem"),
        "{log}"
    );
}

#[test]
fn tcp_listeners_share_their_port_with_udp_and_with_nobody_else() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let user = ["--user", "a:b"];
    let (code, line) = fails(&[&user[..], &["--listen", &format!("tcp://{address}")]].concat());
    assert_eq!(code, 1);
    assert!(
        line.contains("in use") && line.contains(&address.to_string()),
        "{line}"
    );
    drop(taken);
    let first = Service::start(&[
        "--listen",
        &format!("udp://{address}"),
        "--listen",
        &format!("tcp://{address}"),
    ]);
    assert_eq!(
        (first.listen[0], first.listening("tcp")[0]),
        (address, address)
    );
    // Not even with another relay of ours, which would silently get half of the clients.
    let (code, line) = fails(&[&user[..], &["--listen", &format!("tcp://{address}")]].concat());
    assert_eq!(code, 1);
    assert!(line.contains("in use"), "{line}");
    let twice = [
        "--listen",
        "tcp://127.0.0.1:5",
        "--listen",
        "tls://127.0.0.1:5",
    ];
    let (code, line) = fails(&[&user[..], &twice].concat());
    assert_eq!(code, 64);
    assert!(line.contains("given twice"), "{line}");
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
