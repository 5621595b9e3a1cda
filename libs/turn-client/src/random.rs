//! Transaction IDs and jitter from a seed. [RFC 8489 section
//! 6](https://www.rfc-editor.org/rfc/rfc8489#section-6): an ID must not be guessed by who cannot see it.

use std::time::Duration;

use sha2::{Digest, Sha256};
use stun_types::message::TransactionId;

/// SHA-256 of a counter under the seed.
pub(crate) struct Random {
    seed: [u8; 8],
    counter: u64,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed: seed.to_be_bytes(),
            counter: 0,
        }
    }

    fn next(&mut self) -> u128 {
        self.counter += 1;
        let hash: [u8; 32] = Sha256::new()
            .chain_update(b"turn-client transaction")
            .chain_update(self.seed)
            .chain_update(self.counter.to_be_bytes())
            .finalize()
            .into();
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        u128::from_be_bytes(half)
    }

    pub(crate) fn transaction_id(&mut self) -> TransactionId {
        // Keeps the low 96 bits.
        self.next().into()
    }

    /// Between `from` and `to`.
    pub(crate) fn duration(&mut self, from: Duration, to: Duration) -> Duration {
        let span = to.saturating_sub(from).as_millis().max(1);
        from + Duration::from_millis((self.next() % span) as u64)
    }
}
