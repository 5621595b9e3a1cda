//! A new configuration for the running process.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{Client, DEADLINE, Service, channel_data, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::version::TLS13;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use stream::{Certificate, StreamClient, tls};
use turn_types::AddressFamily;

/// A directory with a configuration.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    fn config(&self, fields: &str) {
        let (users, revoked) = (self.path("users"), self.path("revoked"));
        let text = format!("users-file = {users:?}\nrevocations-file = {revoked:?}\n{fields}");
        self.write("turn-relay.toml", &text);
    }

    fn start(&self, more: &[&str]) -> Service {
        let config = self.path("turn-relay.toml");
        let config = ["--config", config.to_str().unwrap()];
        Service::start(&[&config[..], more].concat())
    }
}

fn hang_up(service: &Service) {
    let pid = Pid::from_raw(service.child.id() as i32);
    kill(pid, Signal::SIGHUP).unwrap();
}

/// Sends SIGHUP, and waits until the new configuration is taken.
fn reload(service: &Service) {
    let applied = "config_reloads_total{result=\"applied\"}";
    let before = service.metric(applied);
    hang_up(service);
    until("the reload", || {
        (service.metric(applied) > before).then_some(())
    });
}

/// The numbers of the event loops are some milliseconds old.
fn is(service: &Service, metric: &str, value: u64) {
    until(metric, || (service.metric(metric) == value).then_some(()));
}

const FAMILY: AddressFamily = AddressFamily::IPV4;

#[test]
fn certificate_users_quota_and_allow_list_are_applied_and_nobody_is_dropped() {
    let files = Files::new();
    let mut certificate = Certificate::new();
    let paths = format!(
        "certificate-file = {:?}\nkey-file = {:?}\n",
        certificate.path("certificate.pem"),
        certificate.path("key.pem")
    );
    let listen = "listen = [\"udp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\n";
    let fields = |more: &str| files.config(&format!("{listen}{paths}{more}"));
    files.write("users", "bob:builder\n");
    files.write("revoked", "");
    fields("allow-peers = [\"127.0.0.0/8\"]\nallocations-per-user = 10");
    let service = files.start(&[]);

    // Everybody is there: over UDP and TLS, with channels in both directions.
    let client = Client::connect(service.listen[0]);
    let relayed = client.allocate(FAMILY).unwrap();
    let bob = Client::connect_as(service.listen[0], ("bob", "builder"));
    bob.allocate(FAMILY).unwrap();
    let (kept, lost) = (
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.2:0").unwrap(),
    );
    kept.set_read_timeout(Some(DEADLINE)).unwrap();
    client.bind(0x4000, kept.local_addr().unwrap()).unwrap();
    client.bind(0x4001, lost.local_addr().unwrap()).unwrap();
    let address = service.listening("tls")[0];
    let old = certificate.der.clone();
    let mut over_tls = StreamClient::new(tls(address, &old, &TLS13, &[]).unwrap());
    over_tls.allocate().unwrap();

    certificate.renew();
    files.write("users", "# bob has left\ncarol:christmas\n");
    fields("allow-peers = [\"127.0.0.1/32\"]\nallocations-per-user = 2");
    reload(&service);

    let exchange = || {
        client.socket.send(&channel_data(0x4000, b"there")).unwrap();
        let mut buffer = [0; 100];
        let (length, from) = kept.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"there"[..], relayed));
        kept.send_to(b"back", relayed).unwrap();
        assert_eq!(client.receive(), channel_data(0x4000, b"back"));
    };
    exchange();
    is(&service, "allocations", 3);
    client.refresh().unwrap();
    over_tls.permit(kept.local_addr().unwrap()).unwrap();
    // The certificate.
    tls(address, &certificate.der, &TLS13, &[]).unwrap();
    assert!(tls(address, &old, &TLS13, &[]).is_err());
    // The users.
    let carol = Client::connect_as(service.listen[0], ("carol", "christmas"));
    carol.allocate(FAMILY).unwrap();
    assert_eq!(bob.refresh(), Err(401));
    // The quota: alice has two.
    assert_eq!(
        Client::connect(service.listen[0]).allocate(FAMILY),
        Err(486)
    );
    // The peers.
    let lost = lost.local_addr().unwrap();
    assert_eq!(client.permit(lost), Err(403));
    is(&service, "channels", 1);
    // The report.
    let log = service.log();
    for part in [
        "field=allow-peers",
        "field=allocations-per-user before=10 now=2",
        "configuration applied fields=2 certificate=true users_added=1 users_removed=1",
        "permissions_ended=1 channels_ended=1",
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    for secret in ["christmas", "builder", "wonderland"] {
        assert!(!log.contains(secret));
    }
    assert_eq!(service.metric("config_last_reload_successful"), 1);

    // Again and again, with traffic.
    for _ in 0..5 {
        reload(&service);
        exchange();
    }
    is(&service, "allocations", 4);
}

#[test]
fn a_bad_configuration_is_refused_whole_and_the_old_one_stays() {
    let files = Files::new();
    files.write("users", "bob:builder\n");
    files.write("revoked", "");
    files.config("allow-peers = [\"127.0.0.0/8\"]");
    let service = files.start(&["--listen", "udp://127.0.0.1:0"]);
    let client = Client::connect(service.listen[0]);
    client.allocate(FAMILY).unwrap();
    let refused = "config_reloads_total{result=\"refused\"}";
    let bad = [
        ("allow-peers = [\"127.0.0.5/8\"]", ":3: field `allow-peers`"),
        ("allow-peer = []", ":3: field `allow-peer`"),
        ("realm = \"east\"", "field `realm`: value `east`"),
        ("auth-secret-files = [\"/nowhere\"]", "/nowhere"),
    ];
    for (count, (fields, problem)) in (1..).zip(bad) {
        files.write("users", "carol:christmas\n");
        files.config(fields);
        hang_up(&service);
        until("the refusal", || {
            (service.metric(refused) == count).then_some(())
        });
        let log = service.log();
        let line = log.lines().last().unwrap();
        assert!(line.contains(problem), "{line}");
        assert!(line.contains("the old one stays"), "{line}");
    }
    // Not even the users, which were right.
    let carol = Client::connect_as(service.listen[0], ("carol", "christmas"));
    assert_eq!(carol.allocate(FAMILY), Err(401));
    let bob = Client::connect_as(service.listen[0], ("bob", "builder"));
    bob.allocate(FAMILY).unwrap();
    client.permit("127.0.0.9:9".parse().unwrap()).unwrap();
    assert_eq!(service.metric("config_last_reload_successful"), 0);

    // What needs a restart is said, and the rest is taken.
    files.config("threads = 7\nallow-peers = []");
    reload(&service);
    assert!(
        service
            .log()
            .contains("not before the relay is started again fields=threads")
    );
    assert_eq!(client.permit("127.0.0.9:9".parse().unwrap()), Err(403));
    assert_eq!(service.metric("config_last_reload_successful"), 1);
}

#[test]
fn who_is_put_on_the_list_of_the_revoked_loses_the_allocation_at_once() {
    let files = Files::new();
    files.write("users", "bob:builder\n");
    files.write("revoked", "# nobody\n");
    files.config("");
    let service = files.start(&["--listen", "udp://127.0.0.1:0"]);
    let client = Client::connect(service.listen[0]);
    client.allocate(FAMILY).unwrap();
    let bob = Client::connect_as(service.listen[0], ("bob", "builder"));
    bob.allocate(FAMILY).unwrap();
    // No signal is needed.
    files.write("revoked", "# since today\nbob\n");
    let ended = "allocations_ended_total{reason=\"revoked\"}";
    until("its end", || (service.metric(ended) == 1).then_some(()));
    assert_eq!(bob.refresh(), Err(401));
    client.refresh().unwrap();
    assert!(
        service
            .log()
            .contains("ended: revoked user=\"bob\" allocations=1")
    );
    until("the count", || {
        (service.metric("revoked_requests_total") == 1).then_some(())
    });
    // A list that is gone revokes as before.
    std::fs::remove_file(files.path("revoked")).unwrap();
    until("the error", || {
        let said = service
            .log()
            .contains("the revoked names stay as they were");
        said.then_some(())
    });
    assert_eq!(bob.refresh(), Err(401));
}
