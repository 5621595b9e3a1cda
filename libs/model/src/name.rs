//! Names: one DNS label each ([RFC 1123 section 2.1](https://www.rfc-editor.org/rfc/rfc1123#section-2.1)),
//! lower case, so that every name can stand in a host name, a SPIFFE path and a directory key.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Why a text is not a name. Says the rule, because it is shown to whoever wrote the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a {kind} name: use 1 to 63 of a-z, 0-9 and `-`, not beginning or ending with `-`"
)]
pub struct NameError {
    kind: &'static str,
    text: String,
}

fn check(kind: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=63).contains(&text.len());
    if fits && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.into())
    } else {
        // What is not a name may be hostile and long: keep enough to recognize it.
        let text = text
            .chars()
            .take(80)
            .flat_map(char::escape_default)
            .collect();
        Err(NameError { kind, text })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// One DNS label: 1 to 63 of `[a-z0-9-]`, not beginning or ending with `-`. Cheap to clone.
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
                check($kind, text).map(Self)
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
    /// The mesh: everything under one certificate authority.
    MeshName,
    "mesh"
);
name!(
    /// A network: an administrative and routing domain.
    NetworkName,
    "network"
);
name!(
    /// A node within its network and role.
    NodeName,
    "node"
);
name!(
    /// A service that an activator exports.
    ServiceName,
    "service"
);
name!(
    /// A relay, unique in the mesh.
    RelayName,
    "relay"
);

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
    fn the_error_shows_the_text_escaped_and_cut() {
        let text = format!("\n{}", "x".repeat(500));
        let error = text.parse::<ServiceName>().unwrap_err().to_string();
        assert!(
            error.contains("\\n") && !error.contains('\n') && error.len() < 250,
            "{error}"
        );
    }
}
