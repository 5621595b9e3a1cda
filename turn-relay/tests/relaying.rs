//! The real binary with real sockets on loopback, on every rung of the ladder.

#![allow(clippy::unwrap_used)]

mod common;

mod uring {
    const IO: &str = "uring";
    include!("relaying/cases.rs");
}

mod gso {
    const IO: &str = "gso";
    include!("relaying/cases.rs");
}

mod mmsg {
    const IO: &str = "mmsg";
    include!("relaying/cases.rs");
}

mod plain {
    const IO: &str = "plain";
    include!("relaying/cases.rs");
}
