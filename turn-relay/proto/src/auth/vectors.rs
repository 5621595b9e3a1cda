//! What others signed: RFC 5769 section 2.4, and RFC 8489 appendix B.1 as its erratum 6268 has it.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::*;
    use crate::Shared;
    use model::UnixTime;
    use std::time::Instant;
    use stun_types::message::{BINDING, MessageClass};

    const USER: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
    const REALM: &str = "example.org";
    /// As SASLprep leaves `UNPREPARED`.
    const PREPARED: &str = "TheMatrIX";
    const UNPREPARED: &str = "The\u{AD}M\u{AA}tr\u{2168}";

    /// RFC 5769 section 2.4.
    const SHA1: &str = "00010060 2112a442 78ad3433c6ad72c029da412e
    00060012 e3839ee38388e383aae38383e382afe382b9 0000
    0015001c 662f2f3439396b3935346436 4f4c33346f4c394653547679 36347341
    0014000b 6578616d706c652e6f7267 00
    00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";

    /// RFC 8489 appendix B.1.
    const SHA256: &str = "00010090 2112a442 78ad3433c6ad72c029da412e
    001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
    00150029 6f624d61744a6f733241414143662f2f3439396b3935346436 4f4c33346f4c39465354767936347341 000000
    0014000b 6578616d706c652e6f7267 00
    001d0004 00020000
    001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        let pairs = (0..digits.len()).step_by(2);
        pairs
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect()
    }

    fn credentials(password: &str) -> Credentials {
        let mut credentials = Credentials::new(REALM);
        credentials.add_user(USER, password);
        credentials
    }

    /// The user, if the message is authentic.
    fn user_of(bytes: &[u8], password: &str, nonce_is_fresh: bool) -> Result<Box<str>, Challenge> {
        let shared = Shared::new(Vec::new(), &(50_000..=50_001), 1);
        let credentials = Arc::new(credentials(password));
        let realm = Arc::new(Realm::new(&shared, credentials, Arc::default()));
        let now = Now {
            instant: Instant::now(),
            unix: UnixTime(0),
        };
        let message = Message::decode(bytes).unwrap();
        let by = authenticate(Some(&realm), now, &message, nonce_is_fresh, None, None);
        by.map(|by| by.user.name)
    }

    #[test]
    fn rfc5769_s2_4_the_request_with_long_term_credentials() {
        let request = bytes(SHA1);
        let message = Message::decode(&request).unwrap();
        assert_eq!(message.class(), MessageClass::Request);
        assert_eq!(message.method(), BINDING);
        let nonce = message.value(Nonce::TYPE).unwrap();
        assert_eq!(nonce, b"f//499k954d6OL34oL9FSTvy64sA");
        assert_eq!(user_of(&request, PREPARED, true), Ok(USER.into()));
        // The password is right, so it is only the nonce that is not.
        let stale = user_of(&request, PREPARED, false);
        assert_eq!(stale, Err(Challenge::StaleNonce));
        let other = user_of(&request, "TheMatrix", true);
        assert_eq!(other, Err(Challenge::Unauthorized));
        // Passwords are used as they are given: whoever prepares them does it before.
        let raw = user_of(&request, UNPREPARED, true);
        assert_eq!(raw, Err(Challenge::Unauthorized));
        for at in [24, 48, 80, request.len() - 1] {
            let mut changed = request.clone();
            changed[at] ^= 1;
            assert!(user_of(&changed, PREPARED, true).is_err(), "{at}");
        }
    }

    #[test]
    fn rfc8489_b_1_the_request_with_userhash_and_sha256() {
        let request = bytes(SHA256);
        let message = Message::decode(&request).unwrap();
        let credentials = credentials(PREPARED);
        let hash = message.value(Userhash::TYPE).unwrap();
        assert_eq!(credentials.user_of_hash(hash), Some(USER));
        let integrity = message.integrity().unwrap();
        let key = credentials.keys_of(USER, PasswordHash::Sha256)[0];
        assert!(key.verify(&integrity));
        assert!(!credentials.keys_of(USER, PasswordHash::Md5)[0].verify(&integrity));
        // It chooses an algorithm and does not repeat the offer: to a server, somebody took it out (section 9.2.4).
        let refused = user_of(&request, PREPARED, true);
        assert_eq!(refused, Err(Challenge::BadRequest));
    }
}
