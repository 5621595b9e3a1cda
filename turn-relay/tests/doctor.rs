//! What an admin asks before the relay runs.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{Service, command};
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use stream::Certificate;

/// Exit code, standard output, standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let output = command(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

#[test]
fn the_printed_configuration_can_be_checked_and_so_can_a_wrong_one() {
    let (code, printed, _) = run(&["config", "print-default"]);
    assert_eq!(code, 0);
    assert!(printed.contains("#drain-seconds = 0\n"), "{printed}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("turn-relay.toml");
    let path_text = path.to_str().unwrap();
    let good = "relay-addresses = [\"127.0.0.1\"]\n";
    std::fs::write(&path, format!("{printed}\n{good}")).unwrap();
    let user = ["--user", "a:b"];
    let check = |more: &[&str]| {
        run(&[&user[..], &["config", "check", "--config", path_text], more].concat())
    };
    let (code, said, error) = check(&[]);
    assert_eq!(
        (code, &said[..]),
        (0, "the configuration can be used\n"),
        "{error}"
    );
    std::fs::write(&path, "realm = \"a:b\"\n").unwrap();
    let (code, _, error) = check(&[]);
    assert_eq!(code, 64);
    assert!(
        error.contains("turn-relay.toml:1: field `realm`"),
        "{error}"
    );
    // What it names is read, too.
    let tls = format!(
        "{good}listen = [\"tls://127.0.0.1:0\"]\ncertificate-file = \"/nowhere\"\nkey-file = \"/nowhere\"\n"
    );
    std::fs::write(&path, tls).unwrap();
    let (code, _, error) = check(&[]);
    assert_eq!(code, 64);
    assert!(error.contains("/nowhere"), "{error}");
}

#[test]
fn a_doctor_beside_a_running_relay_finds_it_well() {
    let certificate = Certificate::new();
    let flags = certificate.flags();
    let mut args = vec!["--listen", "tls://127.0.0.1:0"];
    args.extend(flags.iter().map(String::as_str));
    let service = Service::start(&[&["--listen", "udp://127.0.0.1:0"], &args[..]].concat());
    let udp = format!("udp://{}", service.listen[0]);
    let tls = format!("tls://{}", service.listening("tls")[0]);
    let stun = service.listen[0].to_string();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let clock = web.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = web.accept().unwrap();
        let _ = stream.read(&mut [0; 500]).unwrap();
        // Long ago.
        let answer = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let mut all = vec!["--user", "a:b", "--listen", &udp, "--listen", &tls];
    all.extend(flags.iter().map(String::as_str));
    all.extend(["--allow-peer", "10.0.0.0/8", "--port-range", "50000-50099"]);
    let ask = [
        "doctor",
        "--stun",
        &stun,
        "--clock",
        &clock,
        "--name",
        "other.example",
    ];
    let (code, said, error) = run(&[&all[..], &ask].concat());
    answering.join().unwrap();
    let has = |line: &str| {
        assert!(
            said.lines().any(|l| l.starts_with(line)),
            "{line}\n{said}{error}"
        )
    };
    has("ok   configuration: ");
    has("ok   peers: 1 ");
    has(&format!("ok   listener {udp}: a STUN server answers there"));
    has(&format!(
        "ok   listener {tls}: something accepts connections"
    ));
    has("ok   kernel, io gso: works");
    has(&format!(
        "ok   127.0.0.1 as {stun} sees it: 127.0.0.1, which is what clients are told"
    ));
    has(&format!(
        "ok   certificate {}: belongs to its key",
        certificate.path("certificate.pem")
    ));
    has(&format!(
        "fail certificate {}: is for relay.example, not for other.example",
        certificate.path("certificate.pem")
    ));
    has("fail clock: ");
    assert_eq!(code, 1);
}

#[test]
fn what_does_not_work_is_said_with_what_to_do() {
    // Nobody answers there: not a relay, and no STUN server either.
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mute = mute.local_addr().unwrap().to_string();
    let args = [
        "--user",
        "a:b",
        "--listen",
        "udp://127.0.0.1:0",
        "--external-address",
        "192.0.2.1",
        "--port-range",
        "50000-50009",
    ];
    let (code, said, _) = run(&[&args[..], &["doctor", "--stun", &mute]].concat());
    assert_eq!(code, 1);
    let line = said.lines().find(|line| line.contains("sees it")).unwrap();
    assert!(
        line.starts_with("fail") && line.contains("is UDP let out"),
        "{said}"
    );
    assert!(said.contains("warn peers: none may be reached; name networks in allow-peers"));
    assert!(said.contains("warn clock: not compared"));

    let (code, said, _) = run(&["--user", "a:b", "--listen", "udp://192.0.2.77:1", "doctor"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("use an address that `ip address` shows"),
        "{said}"
    );
    let (code, said, _) = run(&["--realm", "", "doctor"]);
    assert_eq!(code, 1);
    assert!(said.starts_with("fail configuration: "), "{said}");
}
