//! Refusals as gRPC statuses.

use tonic::Status;

use crate::{
    authorize::Denied,
    enroll::EnrollError,
    mailbox::PostError,
    store::{StoreError, Update},
};

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn status(error: StoreError) -> Status {
    let text = error.to_string();
    match error {
        StoreError::Conflict { .. } => Status::failed_precondition(text),
        StoreError::NoLease => Status::not_found(text),
        StoreError::Full(_) | StoreError::TooManyLeases(_) => Status::resource_exhausted(text),
        StoreError::OutOfRange(_) => Status::out_of_range(text),
        StoreError::Busy => Status::unavailable(text),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn denied(error: Denied) -> Status {
    match error {
        Denied::Unknown(_) => Status::invalid_argument(error.to_string()),
        Denied::Forbidden(..) => Status::permission_denied(error.to_string()),
    }
}

fn disk() -> Status {
    Status::unavailable("discovery cannot write its data file")
}

pub(crate) fn update_status(error: Update<StoreError>) -> Status {
    match error {
        Update::Refused(error) => status(error),
        Update::Disk => disk(),
    }
}

pub(crate) fn enroll_status(error: &EnrollError) -> Status {
    let text = error.to_string();
    match error {
        EnrollError::Issue(_)
        | EnrollError::Issued(_)
        | EnrollError::Name(_)
        | EnrollError::OtherKey => Status::invalid_argument(text),
        EnrollError::TooMany(_) => Status::resource_exhausted(text),
        EnrollError::Store(_) | EnrollError::Disk => Status::unavailable(text),
        _ => Status::permission_denied(text),
    }
}

pub(crate) fn post_status(error: Update<PostError>) -> Status {
    match error {
        Update::Disk => disk(),
        Update::Refused(PostError::Store(error)) => status(error),
        Update::Refused(error @ PostError::NoNode(_)) => Status::not_found(error.to_string()),
        Update::Refused(error) => Status::resource_exhausted(error.to_string()),
    }
}
