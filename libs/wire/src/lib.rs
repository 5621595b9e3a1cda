//! Stub.
pub mod frame;
pub mod ip;
