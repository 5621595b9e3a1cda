//! Unpredictable numbers from a seed, for ports and tokens (RFC 8656 section 7.2 wants ports chosen at random).

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// HMAC-SHA256 of a counter under the seed: as strong as the seed is secret.
pub(crate) struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random(…)")
    }
}

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    fn block(&mut self) -> [u8; 32] {
        self.counter += 1;
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.seed).expect("HMAC takes keys of any length");
        mac.update(&self.counter.to_be_bytes());
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn u64(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.block();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// 96 bits, as a STUN transaction id has.
    pub(crate) fn transaction(&mut self) -> [u8; 12] {
        let block = self.block();
        let mut id = [0; 12];
        id.copy_from_slice(&block[..12]);
        id
    }

    /// Less than `bound`; 0 for a bound of 0. The bias is below 2^-32 for bounds below 2^32.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            return 0;
        }
        (self.u64() % bound as u64) as usize
    }
}
