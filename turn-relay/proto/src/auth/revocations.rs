//! Whose credentials are worth nothing any more, although they would prove to be right.

use rustc_hash::FxHashSet;

/// Immutable, shared by all shards. A name is that of a user, what an expiring user name stands for (`alice` for
/// `1900000000:alice`), one such user name as a whole, or the key identifier of third-party tokens.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    names: FxHashSet<Box<str>>,
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Revocations({})", self.names.len())
    }
}

impl Revocations {
    pub fn new<N: Into<Box<str>>>(names: impl IntoIterator<Item = N>) -> Self {
        Self {
            names: names.into_iter().map(Into::into).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many names are in this list and not in `other`.
    pub fn beyond(&self, other: &Self) -> usize {
        self.names.difference(&other.names).count()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        !self.names.is_empty() && self.names.contains(name)
    }
}
