//! SIGTERM with `drain-seconds`: nobody new, and the end comes with the last allocation.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, DEADLINE, Service, channel_data, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::UdpSocket;
use turn_types::AddressFamily;

const FAMILY: AddressFamily = AddressFamily::IPV4;

fn start(drain: &str) -> Service {
    let listen = [
        "--listen",
        "udp://127.0.0.1:0",
        "--allow-peer",
        "127.0.0.0/8",
    ];
    Service::start(&[&listen[..], &["--drain-seconds", drain]].concat())
}

fn tell(service: &Service, signal: Signal) {
    kill(Pid::from_raw(service.child.id() as i32), signal).unwrap();
}

fn drains(service: &Service) {
    until("the drain", || {
        service.log().contains("draining: new").then_some(())
    });
}

#[test]
fn what_exists_lives_on_nobody_new_comes_and_the_end_comes_with_the_last() {
    let mut service = start("600");
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let old = Client::connect(service.listen[0]);
    let new = Client::connect(service.listen[0]);
    old.allocate(FAMILY).unwrap();
    assert_eq!(old.refresh(), Ok(600));
    until("the count", || {
        (service.metric("allocations") == 1).then_some(())
    });
    tell(&service, Signal::SIGTERM);
    drains(&service);
    assert!(old.refresh().unwrap() < 600, "no longer than the drain");
    let unready = service.get("/readyz");
    assert!(
        unready.starts_with("HTTP/1.1 503") && unready.contains("draining"),
        "{unready}"
    );
    assert!(service.get("/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(new.allocate(FAMILY), Err(508));
    old.bind(0x4001, peer.local_addr().unwrap()).unwrap();
    old.socket
        .send(&channel_data(0x4001, b"still here"))
        .unwrap();
    let mut buffer = [0; 100];
    let length = peer.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"still here");
    old.delete().unwrap();
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    assert!(service.log().contains("drained"));
}

#[test]
fn it_ends_when_the_time_is_over_or_at_a_second_word() {
    let mut service = start("1");
    let client = Client::connect(service.listen[0]);
    client.allocate(FAMILY).unwrap();
    until("the count", || {
        (service.metric("allocations") == 1).then_some(())
    });
    tell(&service, Signal::SIGTERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    assert!(
        service.log().contains("allocations are left"),
        "{}",
        service.log()
    );

    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let mut service = start("600");
        let client = Client::connect(service.listen[0]);
        client.allocate(FAMILY).unwrap();
        until("the count", || {
            (service.metric("allocations") == 1).then_some(())
        });
        tell(&service, Signal::SIGTERM);
        drains(&service);
        tell(&service, second);
        assert_eq!(service.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn without_allocations_there_is_nothing_to_wait_for() {
    let mut service = start("600");
    tell(&service, Signal::SIGTERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}
