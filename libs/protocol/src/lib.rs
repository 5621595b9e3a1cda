//! Our own contracts on the wire: the directory that discovery serves, the documents that nodes sign, and
//! the control messages of a link. Generated from `proto/`; drawn and explained in `docs/protocol/`.

#![forbid(unsafe_code)]

pub use generated::turnpike::directory::v1 as directory;
pub use generated::turnpike::document::v1 as document;

// Nested as the packages are: the generated code refers to its neighbours by relative path.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all
)]
#[allow(rustdoc::invalid_html_tags)]
mod generated {
    pub mod turnpike {
        pub mod directory {
            pub mod v1 {
                tonic::include_proto!("turnpike.directory.v1");
            }
        }
        pub mod document {
            pub mod v1 {
                tonic::include_proto!("turnpike.document.v1");
            }
        }
    }
}
