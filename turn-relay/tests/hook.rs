//! The site's own check of users: a small HTTP server of the test's, and the real process.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Service, until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use turn_types::AddressFamily;

const FAMILY: AddressFamily = AddressFamily::IPV4;

/// A site, which keeps what it was asked.
#[derive(Clone)]
struct Site {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    hanging: Arc<AtomicUsize>,
}

impl Site {
    fn start(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            hanging: Arc::default(),
        };
        let here = site.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (here, tls) = (here.clone(), tls.clone());
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    match tls {
                        None => here.serve(stream),
                        Some(config) => {
                            let session = rustls::ServerConnection::new(config).unwrap();
                            here.serve(rustls::StreamOwned::new(session, stream));
                        }
                    }
                });
            }
        });
        site
    }

    /// Requests on one connection, until it ends.
    fn serve(&self, mut stream: impl Read + Write) {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4_096];
        loop {
            let Ok(length @ 1..) = stream.read(&mut buffer) else {
                return;
            };
            bytes.extend(&buffer[..length]);
            let text = String::from_utf8(bytes.clone()).unwrap();
            if !text.ends_with('}') {
                continue;
            }
            bytes.clear();
            self.asked.lock().unwrap().push(text.clone());
            let user = text.split("\"user\":\"").nth(1).unwrap();
            let user = user.split('"').next().unwrap();
            let (status, body) = match user {
                "carol" => ("200 OK", r#"{"password": "christmas"}"#),
                "dave" => ("403 Forbidden", ""),
                "erin" => ("200 OK", "nonsense"),
                "frank" => ("302 Found", ""),
                "grace" => ("200 OK", r#"{"user": "grace"}"#),
                _ => {
                    self.hanging.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.read(&mut buffer);
                    return;
                }
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(head.as_bytes()).unwrap();
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// A relay that asks this URL.
fn start(directory: &tempfile::TempDir, url: &str, more: &str) -> Service {
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("secret"), "open sesame").unwrap();
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path("secret"), mode).unwrap();
    let config = format!(
        "listen = [\"udp://127.0.0.1:0\", \"tcp://127.0.0.1:0\"]\nthreads = 1\n[hook]\nurl = {url:?}\n\
         secret-file = {:?}\n{more}",
        path("secret")
    );
    std::fs::write(path("config"), config).unwrap();
    Service::start(&["--config", path("config").to_str().unwrap()])
}

fn answers(service: &Service, result: &str, count: u64) {
    let name = format!("hook_answers_total{{result=\"{result}\"}}");
    until(&name, || (service.metric(&name) == count).then_some(()));
}

#[test]
fn who_the_site_knows_is_let_in_once_asked_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::start(None);
    let url = format!("http://{}/check", site.address);
    let service = start(&directory, &url, "timeout-milliseconds = 400");
    let allocate = |name: &str, password: &str| {
        Client::connect_as(service.listen[0], (name, password)).allocate(FAMILY)
    };
    allocate("carol", "christmas").unwrap();
    allocate("carol", "christmas").unwrap();
    assert_eq!(allocate("carol", "easter"), Err(401));
    assert_eq!(allocate("dave", "x"), Err(401));
    assert_eq!(allocate("dave", "x"), Err(401));
    assert_eq!(site.asked(), 2);
    let first = site.asked.lock().unwrap()[0].to_lowercase();
    assert!(first.starts_with("post /check http/1.1"), "{first}");
    assert!(
        first.contains("authorization: bearer open sesame"),
        "{first}"
    );
    assert!(
        first.ends_with(r#"{"user":"carol","realm":"turnpike"}"#),
        "{first}"
    );
    // What is no answer lets nobody in, and is not remembered.
    for name in ["erin", "frank", "grace", "heidi", "erin"] {
        assert_eq!(allocate(name, "x"), Err(500), "{name}");
    }
    assert_eq!(site.asked(), 7);
    answers(&service, "found", 1);
    answers(&service, "refused", 1);
    answers(&service, "failed", 5);
    let log = service.log();
    assert!(
        log.contains("the hook failed error=\"no answer in time\""),
        "{log}"
    );
    assert!(!log.contains("sesame") && !log.contains("christmas"));
}

#[test]
fn while_the_site_hangs_everybody_else_is_served_and_what_waits_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::start(None);
    let url = format!("http://{}", site.address);
    let more = "timeout-milliseconds = 5000\nin-flight = 2\nwaiting = 3";
    let service = start(&directory, &url, more);
    let client = Client::connect(service.listen[0]);
    client.allocate(FAMILY).unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|number| {
            let address = service.listen[0];
            std::thread::spawn(move || {
                let name = format!("user-{number}");
                Client::connect_as(address, (&name, "x")).allocate(FAMILY)
            })
        })
        .collect();
    until("the questions", || {
        (service.metric("hook_in_flight") == 3).then_some(())
    });
    until("the site", || {
        (site.hanging.load(Ordering::SeqCst) == 2).then_some(())
    });
    let late = Client::connect_as(service.listen[0], ("user-9", "x"));
    assert_eq!(late.allocate(FAMILY), Err(500));
    for _ in 0..20 {
        client.refresh().unwrap();
    }
    assert_eq!(service.metric("hook_in_flight"), 3);
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), Err(500));
    }
    answers(&service, "failed", 3);
    assert_eq!(service.metric("hook_without_room_total"), 1);
}

#[test]
fn a_site_over_tls_must_show_a_certificate_of_the_authority() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
        .unwrap();
    let site = Site::start(Some(Arc::new(config)));
    let url = format!("https://localhost:{}/", site.address.port());
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let service = start(&directory, &url, &format!("ca-file = {ca:?}"));
    let carol = Client::connect_as(service.listen[0], ("carol", "christmas"));
    carol.allocate(FAMILY).unwrap();

    // Of another authority.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&ca, other.cert.pem()).unwrap();
    let service = start(&directory, &url, &format!("ca-file = {ca:?}"));
    let carol = Client::connect_as(service.listen[0], ("carol", "christmas"));
    assert_eq!(carol.allocate(FAMILY), Err(500));
    assert_eq!(site.asked(), 1);
}
