//! The readers of what others wrote, each by itself: for fuzz targets, which reach the rest by its own doors.

pub use crate::handover::foreign::take_and_leave;
pub use crate::hook::understand;
pub use crate::stream::foreign::DtlsEnd;
pub use crate::stream::{Announced, NoHeader, ProxyHeader};
