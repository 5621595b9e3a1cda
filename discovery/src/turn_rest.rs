//! TURN REST credentials: a user name that is its own expiry, a password that only the secret's holders can make
//! ([draft-uberti-behave-turn-rest-00](https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00)).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac as _};
use model::{NodeId, UnixTime};
use sha1::Sha1;

/// User name `<expiry>:<node id>` and password, base64 of HMAC-SHA1 of the user name with the relay's secret.
pub(crate) fn mint(secret: &[u8], node: &NodeId, expires: UnixTime) -> (String, String) {
    let username = format!("{}:{node}", expires.0);
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(username.as_bytes());
    let password = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    (username, password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_what_openssl_says() {
        // printf 1800000000:west/activator/gw | openssl dgst -sha1 -hmac north -binary | base64
        let (username, password) = mint(
            b"north",
            &"west/activator/gw".parse().unwrap(),
            UnixTime(1_800_000_000),
        );
        assert_eq!(username, "1800000000:west/activator/gw");
        assert_eq!(password, "yzjPzvtB13CvuN3LYZKxAHOFF88=");
    }
}
