//! Two lanes face to face.
