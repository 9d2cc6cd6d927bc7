//! Binary files in git patches: base 85, zlib, and git's delta.
//!
//! diffy decodes them too, but without a bound: a message of 200 KB could make it fill gigabytes. Here the size that
//! the patch states is checked against the limit first, and nothing grows beyond it.

use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

/// How one direction of a binary patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All bytes of the file.
    Literal,
    /// Instructions that make the file from the other version.
    Delta,
}

/// One direction of a binary patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    kind: Kind,
    /// Bytes that `deflated` must inflate to.
    size: usize,
    /// A zlib stream.
    pub(super) deflated: Vec<u8>,
}

/// Why a block gives no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Undecodable {
    /// More bytes than a file may have.
    #[error("would have {0} bytes")]
    TooLarge(
        /// How many the patch says, or the limit where it does not say the truth.
        usize,
    ),
    /// The zlib stream is broken or does not have the size it should.
    #[error("the patch's bytes for it are damaged")]
    Damaged,
    /// The delta was made for a file of another size.
    #[error("the patch was made for another version of it")]
    OtherVersion,
}

/// `literal <size>` or `delta <size>`.
pub(super) fn block_header(line: &str) -> Option<Block> {
    let (word, size) = line.split_once(' ')?;
    let kind = match word {
        "literal" => Kind::Literal,
        "delta" => Kind::Delta,
        _ => return None,
    };
    let plain = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
    let size = plain.then(|| size.parse().ok()).flatten()?;
    Some(Block {
        kind,
        size,
        deflated: Vec::new(),
    })
}

const ALPHABET: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// Appends the bytes of one line: a letter for their number (`A`–`Z` 1–26, `a`–`z` 27–52), then five characters for
/// each four bytes. False if it is not such a line.
pub(super) fn decode_line(line: &str, bytes: &mut Vec<u8>) -> bool {
    let Some((&letter, digits)) = line.as_bytes().split_first() else {
        return false;
    };
    let count = match letter {
        b'A'..=b'Z' => usize::from(letter - b'A') + 1,
        b'a'..=b'z' => usize::from(letter - b'a') + 27,
        _ => return false,
    };
    if digits.len() != count.div_ceil(4) * 5 {
        return false;
    }
    let start = bytes.len();
    for five in digits.chunks_exact(5) {
        let mut word: u32 = 0;
        for digit in five {
            let Some(value) = ALPHABET.iter().position(|known| known == digit) else {
                return false;
            };
            let value = u32::try_from(value).unwrap_or(u32::MAX);
            let Some(next) = word
                .checked_mul(85)
                .and_then(|word| word.checked_add(value))
            else {
                return false;
            };
            word = next;
        }
        bytes.extend(word.to_be_bytes());
    }
    bytes.truncate(start + count);
    true
}

impl Block {
    /// What this direction makes of `from`; never more than `max_bytes`.
    pub(super) fn apply(&self, from: &[u8], max_bytes: usize) -> Result<Vec<u8>, Undecodable> {
        if self.size > max_bytes {
            return Err(Undecodable::TooLarge(self.size));
        }
        let inflated = decompress_to_vec_zlib_with_limit(&self.deflated, self.size)
            .map_err(|_| Undecodable::Damaged)?;
        if inflated.len() != self.size {
            return Err(Undecodable::Damaged);
        }
        match self.kind {
            Kind::Literal => Ok(inflated),
            Kind::Delta => apply_delta(from, &inflated, max_bytes),
        }
    }
}

/// Git's delta: two sizes, then instructions that copy from `from` or insert.
fn apply_delta(from: &[u8], delta: &[u8], max_bytes: usize) -> Result<Vec<u8>, Undecodable> {
    let mut rest = delta.iter().copied();
    let from_size = delta_size(&mut rest).ok_or(Undecodable::Damaged)?;
    let to_size = delta_size(&mut rest).ok_or(Undecodable::Damaged)?;
    if from_size != from.len() {
        return Err(Undecodable::OtherVersion);
    }
    if to_size > max_bytes {
        return Err(Undecodable::TooLarge(to_size));
    }
    let mut to = Vec::with_capacity(to_size);
    while let Some(instruction) = rest.next() {
        if instruction & 0x80 != 0 {
            let mut number = |first_bit: u32, bytes: u32| -> Option<usize> {
                let mut value = 0;
                for index in 0..bytes {
                    if instruction & 1 << (first_bit + index) != 0 {
                        value |= usize::from(rest.next()?) << (8 * index);
                    }
                }
                Some(value)
            };
            let offset = number(0, 4).ok_or(Undecodable::Damaged)?;
            let length = match number(4, 3).ok_or(Undecodable::Damaged)? {
                0 => 0x1_0000,
                length => length,
            };
            let copied = offset
                .checked_add(length)
                .and_then(|end| from.get(offset..end));
            to.extend_from_slice(copied.ok_or(Undecodable::Damaged)?);
        } else {
            let before = to.len();
            to.extend(rest.by_ref().take(usize::from(instruction)));
            // Zero is reserved.
            if instruction == 0 || to.len() - before != usize::from(instruction) {
                return Err(Undecodable::Damaged);
            }
        }
        if to.len() > to_size {
            return Err(Undecodable::Damaged);
        }
    }
    if to.len() != to_size {
        return Err(Undecodable::Damaged);
    }
    Ok(to)
}

/// A number in groups of seven bits, the lowest first.
fn delta_size(rest: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let mut size: usize = 0;
    for shift in (0..usize::BITS - 7).step_by(7) {
        let byte = rest.next()?;
        size |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(size);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec_zlib;
    use proptest::prelude::*;

    use super::*;

    fn block(kind: Kind, size: usize, bytes: &[u8]) -> Block {
        Block {
            kind,
            size,
            deflated: compress_to_vec_zlib(bytes, 6),
        }
    }

    #[test]
    fn a_line_of_base_85_is_its_bytes() {
        let mut bytes = Vec::new();
        assert!(decode_line("KcmV+b0RR6000031", &mut bytes));
        assert_eq!(
            decompress_to_vec_zlib_with_limit(&bytes, 10).ok(),
            Some(Vec::new())
        );
    }

    #[test]
    fn lines_that_are_not_base_85_are_refused() {
        for line in [
            "",
            "A",
            "A0000",
            "A0000,",
            "0AAAAA",
            "A~~~~~",
            "B00000000000",
        ] {
            assert!(!decode_line(line, &mut Vec::new()), "{line}");
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let bomb = vec![0; 1 << 20];
        assert_eq!(
            block(Kind::Literal, 1 << 20, &bomb).apply(b"", 1000),
            Err(Undecodable::TooLarge(1 << 20))
        );
        assert_eq!(
            block(Kind::Literal, 10, &bomb).apply(b"", 1000),
            Err(Undecodable::Damaged)
        );
        // One byte, then copies of 16 MB that were never announced.
        let delta = [&[1, 5][..], &[0xf0, 0xff, 0xff, 0xff].repeat(1000)].concat();
        assert_eq!(
            block(Kind::Delta, delta.len(), &delta).apply(b"x", 1 << 20),
            Err(Undecodable::Damaged)
        );
        let copies = [&[1, 5][..], &[0x90, 1].repeat(1000)].concat();
        assert_eq!(
            block(Kind::Delta, copies.len(), &copies).apply(b"x", 1 << 20),
            Err(Undecodable::Damaged)
        );
    }

    #[test]
    fn a_delta_copies_and_inserts() {
        let delta = [11, 11, 5, b'H', b'E', b'L', b'L', b'O', 0x91, 5, 6];
        let block = block(Kind::Delta, delta.len(), &delta);
        assert_eq!(
            block.apply(b"hello world", 100).as_deref(),
            Ok(b"HELLO world".as_slice())
        );
        assert_eq!(block.apply(b"hello", 100), Err(Undecodable::OtherVersion));
    }

    proptest! {
        #[test]
        fn any_delta_ends_within_the_limit(from in proptest::collection::vec(any::<u8>(), 0..50),
                                           mut delta in proptest::collection::vec(any::<u8>(), 2..60)) {
            delta[0] = u8::try_from(from.len()).expect("small");
            if let Ok(to) = apply_delta(&from, &delta, 64) {
                prop_assert!(to.len() <= 64);
            }
        }

        #[test]
        fn any_line_is_decoded_or_refused(line in "\\PC{0,80}") {
            let mut bytes = Vec::new();
            let decoded = decode_line(&line, &mut bytes);
            let most = if decoded { 52 } else { 68 };
            prop_assert!(bytes.len() <= most);
        }
    }
}
