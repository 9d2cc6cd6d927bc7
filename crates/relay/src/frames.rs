//! Where one frame of a WebSocket ends and the next begins (RFC 6455 §5.2), told from the bytes as they pass. Pure: nothing is
//! kept, unmasked or understood; only the heads are read.
//!
//! ```text
//!   ┌ first two bytes ┐┌ 0, 2 or 8 ┐┌ 0 or 4 ┐┌──────────────────┐
//!   │ opcode, length  ││ long length││ mask   ││ payload          │◀─ boundary: here a frame of ours may stand
//!   └─────────────────┘└───────────┘└────────┘└──────────────────┘
//! ```
//!
//! A control frame may stand between any two frames, also between the pieces of one message. What is no WebSocket after all
//! has no boundary worth the name; then whoever waits for one waits in vain, and has a limit.

/// The frame that says that the server goes away: an unmasked `Close`, with the status 1001.
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// The longest head: two bytes, a length of eight, a mask of four.
const HEAD_MAX_BYTES: usize = 14;

const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// In place of a length: two bytes of it follow, or eight.
const LENGTH_IN_TWO: u8 = 126;
const LENGTH_IN_EIGHT: u8 = 127;

/// One direction of a socket, as far as it has passed.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; HEAD_MAX_BYTES],
    /// How much of the head has passed; none at a boundary and within a payload.
    head_bytes: usize,
    /// What is still to come of the payload.
    payload_bytes: u64,
    closed: bool,
}

impl Frames {
    /// Whether a frame has just ended, or none has begun.
    pub(crate) fn at_boundary(&self) -> bool {
        self.head_bytes == 0 && self.payload_bytes == 0
    }

    /// Whether a `Close` has begun to pass: after it nothing may be said.
    pub(crate) fn are_closed(&self) -> bool {
        self.closed
    }

    /// Lets all of `bytes` pass.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let passed = self.step(rest);
            rest = &rest[passed..];
        }
    }

    /// Lets pass what of `bytes` belongs to the frame that has begun, and says how much that was. At a boundary it is nothing.
    pub(crate) fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while !self.at_boundary() && passed < bytes.len() {
            passed += self.step(&bytes[passed..]);
        }
        passed
    }

    /// Lets one byte of a head pass, or as much of a payload as there is. `bytes` is not empty.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload_bytes > 0 {
            let passed = usize::try_from(self.payload_bytes)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            self.payload_bytes -= passed as u64;
            return passed;
        }
        self.head[self.head_bytes] = bytes[0];
        self.head_bytes += 1;
        if let Some(payload_bytes) = payload_after(&self.head[..self.head_bytes]) {
            self.closed |= self.head[0] & OPCODE == CLOSE;
            self.payload_bytes = payload_bytes;
            self.head_bytes = 0;
        }
        1
    }
}

/// The length of the payload, if this is a whole head.
fn payload_after(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let long_bytes = match second & LENGTH {
        LENGTH_IN_TWO => 2,
        LENGTH_IN_EIGHT => 8,
        _ => 0,
    };
    let mask_bytes = if second & MASKED == 0 { 0 } else { 4 };
    if head.len() < 2 + long_bytes + mask_bytes {
        return None;
    }
    if long_bytes == 0 {
        return Some(u64::from(second & LENGTH));
    }
    let length = head[2..2 + long_bytes]
        .iter()
        .fold(0, |length, byte| length << 8 | u64::from(*byte));
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, masked: bool, payload_bytes: usize) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let mask = if masked { MASKED } else { 0 };
        match payload_bytes {
            0..=125 => frame.push(mask | u8::try_from(payload_bytes).expect("small")),
            126..=0xffff => {
                frame.push(mask | LENGTH_IN_TWO);
                frame.extend(
                    u16::try_from(payload_bytes)
                        .expect("two bytes")
                        .to_be_bytes(),
                );
            }
            _ => {
                frame.push(mask | LENGTH_IN_EIGHT);
                frame.extend((payload_bytes as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        // Bytes that would be heads if they were read as such.
        frame.extend(std::iter::repeat_n(0x88, payload_bytes));
        frame
    }

    /// Where the frames of a stream end.
    fn ends(frames: &[Vec<u8>]) -> Vec<usize> {
        frames
            .iter()
            .scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            })
            .collect()
    }

    #[test]
    fn a_boundary_is_where_a_frame_ends_and_nowhere_else() {
        let mut all = Vec::new();
        for payload_bytes in [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000] {
            all.push(frame(1, false, payload_bytes));
            all.push(frame(2, true, payload_bytes));
        }
        let ends = ends(&all);
        let mut frames = Frames::default();
        assert!(frames.at_boundary());
        for (at, byte) in all.concat().iter().enumerate() {
            frames.pass(&[*byte]);
            assert_eq!(frames.at_boundary(), ends.contains(&(at + 1)), "at {at}");
        }
        assert!(!frames.are_closed());
    }

    #[test]
    fn what_passes_in_pieces_ends_where_it_would_in_one() {
        let all = [
            frame(1, false, 200),
            frame(9, false, 3),
            frame(1, true, 70_000),
        ];
        let (ends, bytes) = (ends(&all), all.concat());
        for cut in (0..bytes.len())
            .step_by(97)
            .chain([1, 2, 3, 4, 5, 204, 205])
        {
            let mut frames = Frames::default();
            frames.pass(&bytes[..cut]);
            let end = if frames.at_boundary() {
                cut
            } else {
                *ends.iter().find(|end| **end > cut).expect("a frame's end")
            };
            assert_eq!(frames.finish(&bytes[cut..]), end - cut, "cut at {cut}");
            assert!(frames.at_boundary());
            assert_eq!(
                frames.finish(&bytes[end..]),
                0,
                "the next frame is not begun"
            );
        }
    }

    #[test]
    fn after_a_close_nothing_is_said() {
        let mut frames = Frames::default();
        frames.pass(&frame(1, false, 8));
        assert!(!frames.are_closed());
        frames.pass(&GOING_AWAY[..1]);
        assert!(!frames.at_boundary());
        frames.pass(&GOING_AWAY[1..]);
        assert!(frames.are_closed() && frames.at_boundary());
    }

    #[test]
    fn a_length_that_cannot_be_is_waited_for_and_no_panic() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, LENGTH_IN_EIGHT]);
        frames.pass(&vec![0xff; 100_000]);
        assert!(!frames.at_boundary());
    }
}
