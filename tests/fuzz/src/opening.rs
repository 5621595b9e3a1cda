//! What stands at the start: of a connection from a load balancer, and of a session of DTLS.

mod dtls;
mod proxy;

pub(crate) fn run(data: &[u8]) {
    match data.split_first() {
        Some((0x80.., rest)) => dtls::run(rest),
        Some((first, rest)) => proxy::run(rest, usize::from(*first) + 1),
        None => {}
    }
}
