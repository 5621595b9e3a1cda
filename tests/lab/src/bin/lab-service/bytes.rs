//! A stream of bytes that looks random and is the same every time.
use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

const BLOCK: usize = 64 * 1024;

/// Writes the first `length` bytes of the stream.
pub(crate) fn write(length: u64, to: &mut impl Write) -> io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; BLOCK];
    let mut left = length;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            // xorshift64, Marsaglia 2003.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let take = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        to.write_all(&block[..take])?;
        left -= take as u64;
    }
    Ok(())
}

/// SHA-256 of the first `length` bytes, in hexadecimal.
pub(crate) fn digest(length: u64) -> String {
    let mut hash = Hashing::default();
    // A hash takes everything.
    let _ = write(length, &mut hash);
    hash.hex()
}

/// A sink that only remembers the SHA-256 of what went in.
#[derive(Debug, Default)]
pub(crate) struct Hashing(Sha256);

impl Hashing {
    pub(crate) fn hex(self) -> String {
        self.0
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_stream_begins_with_the_shorter_one() {
        let (mut short, mut long) = (Vec::new(), Vec::new());
        write(1000, &mut short).expect("a Vec takes everything");
        write(200_000, &mut long).expect("a Vec takes everything");
        assert_eq!(short.len(), 1000);
        assert_eq!(long.len(), 200_000);
        assert_eq!(short, long[..1000]);
    }

    #[test]
    fn the_digest_of_nothing_is_that_of_sha_256() {
        assert!(digest(0).starts_with("e3b0c44298fc1c14"));
        assert_ne!(digest(1), digest(2));
    }
}
