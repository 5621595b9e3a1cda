//! Names: one DNS label each ([RFC 1123 section 2.1](https://www.rfc-editor.org/rfc/rfc1123#section-2.1)),
//! lower case, so that every name can stand in a host name, a SPIFFE path and a directory key. A service's name may have
//! several labels.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Why a text is not a name. Says the rule, because it is shown to whoever wrote the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a {kind} name: use 1 to 63 of a-z, 0-9 and `-`, not beginning or ending with `-`{more}"
)]
pub struct NameError {
    kind: &'static str,
    text: String,
    more: &'static str,
}

/// Bytes of a service's name: room for two labels, and as many more as fit.
pub const MAX_SERVICE_NAME: usize = 127;

fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=63).contains(&text.len());
    fits && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

fn error(kind: &'static str, text: &str, more: &'static str) -> NameError {
    // What is not a name may be hostile and long: keep enough to recognize it.
    let text = text
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect();
    NameError { kind, text, more }
}

fn one_label(kind: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    let is_name = is_label(text);
    is_name
        .then(|| text.into())
        .ok_or_else(|| error(kind, text, ""))
}

fn labels(kind: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    let is_name = text.len() <= MAX_SERVICE_NAME && text.split('.').all(is_label);
    let more = "; several such labels with dots between them have 127 bytes at most";
    is_name
        .then(|| text.into())
        .ok_or_else(|| error(kind, text, more))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        ///
        /// A DNS label is 1 to 63 of `[a-z0-9-]`, not beginning or ending with `-`. Cheap to clone.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check($kind, text).map(Self)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

name!(
    /// The mesh: everything under one certificate authority. One label.
    MeshName,
    "mesh",
    one_label
);
name!(
    /// A network: an administrative and routing domain. One label.
    NetworkName,
    "network",
    one_label
);
name!(
    /// A node within its network and role. One label.
    NodeName,
    "node",
    one_label
);
name!(
    /// A service that an activator exports. One label, or several with dots between them, at most 127 bytes.
    ServiceName,
    "service",
    labels
);
name!(
    /// A relay, unique in the mesh. One label.
    RelayName,
    "relay",
    one_label
);

impl ServiceName {
    /// The name of these labels, in lower case, the first of them first.
    ///
    /// # Errors
    /// When one of them is no label of a name, or they are too long together.
    pub fn from_labels<T: AsRef<str>>(
        labels: impl IntoIterator<Item = T>,
    ) -> Result<Self, NameError> {
        let mut text = String::new();
        for label in labels {
            let label = label.as_ref();
            // A label of a DNS message may have a dot in it.
            if !is_label(label) {
                return Err(error("service", label, ""));
            }
            if !text.is_empty() {
                text.push('.');
            }
            text += label;
        }
        text.parse()
    }

    /// Its labels, the first of them first.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

/// As text, by which it is ordered and hashed.
impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_lower_case_dns_label() {
        for good in ["a", "west", "app-1", "0", &"x".repeat(63)] {
            assert_eq!(good.parse::<NetworkName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "a_b",
            "ä",
            " a",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_services_name_may_have_several_labels() {
        for good in ["orders", "api.prod", "a.b.c", &vec!["x"; 64].join(".")] {
            let name: ServiceName = good.parse().unwrap();
            assert_eq!(name.labels().collect::<Vec<_>>().join("."), good);
            assert_eq!(ServiceName::from_labels(good.split('.')).unwrap(), name);
        }
        let long = vec!["x"; 65].join(".");
        for bad in ["", ".", "a.", ".a", "a..b", "a.B", "a_b.c", &long] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
        assert!(ServiceName::from_labels(["a.b", "c"]).is_err());
    }

    #[test]
    fn the_error_shows_the_text_escaped_and_cut() {
        let text = format!("\n{}", "x".repeat(500));
        let error = text.parse::<ServiceName>().unwrap_err().to_string();
        assert!(
            error.contains("\\n") && !error.contains('\n') && error.len() < 250,
            "{error}"
        );
    }
}
