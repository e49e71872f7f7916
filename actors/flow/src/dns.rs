//! A DNS message, as much of it as detectors ask for; nothing is allocated.

/// Longest name in text, without the last dot.
pub const NAME_MAX: usize = 255;

/// What a message says.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// A response, as against a query.
    pub response: bool,
    /// Response code: 0 fine, 3 no such name.
    pub code: u8,
    /// Type of the first question.
    pub kind: u16,
    /// Bytes of all answers' data.
    pub answer_bytes: u32,
    name: [u8; NAME_MAX],
    name_bytes: u8,
}

impl Message {
    /// Name of the first question, bytes as they are, dots between labels.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name[..usize::from(self.name_bytes)]
    }
}

/// Type NULL: any bytes; no resolver asks for it.
pub const NULL: u16 = 10;
/// Type TXT.
pub const TXT: u16 = 16;

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// Reads a message with one question or more. `None` where it is none.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Message> {
    let flags = be16(bytes, 2)?;
    let (questions, answers) = (be16(bytes, 4)?, be16(bytes, 6)?);
    // Queries and responses of the standard kind; the Z bit is always clear.
    if questions == 0 || questions > 4 || flags & 0x7840 != 0 {
        return None;
    }
    let mut message = Message {
        response: flags & 0x8000 != 0,
        code: (flags & 15) as u8,
        kind: 0,
        answer_bytes: 0,
        name: [0; NAME_MAX],
        name_bytes: 0,
    };
    let mut at = 12;
    let mut filled = 0;
    loop {
        let label = usize::from(*bytes.get(at)?);
        at += 1;
        if label == 0 {
            break;
        }
        // Questions come first, so there is nothing a pointer could point back to.
        if label > 63 || filled + label + usize::from(filled > 0) > NAME_MAX {
            return None;
        }
        if filled > 0 {
            message.name[filled] = b'.';
            filled += 1;
        }
        message.name[filled..filled + label].copy_from_slice(bytes.get(at..at + label)?);
        filled += label;
        at += label;
    }
    message.name_bytes = filled as u8;
    message.kind = be16(bytes, at)?;
    at += 4;
    for _ in 1..questions {
        at = skip_name(bytes, at)? + 4;
    }
    // What was cut off by the snap length is not needed.
    for _ in 0..answers.min(64) {
        let Some(fixed) = skip_name(bytes, at) else { break };
        let Some(length) = be16(bytes, fixed + 8) else { break };
        message.answer_bytes += u32::from(length);
        at = fixed + 10 + usize::from(length);
    }
    Some(message)
}

fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            label if label < 64 => at += 1 + usize::from(label),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_response_is_read() {
        let mut bytes = vec![0, 1, 0x81, 0x83, 0, 1, 0, 1, 0, 0, 0, 0];
        bytes.extend(b"\x03www\x07example\x03com\x00\x00\x10\x00\x01");
        bytes.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 9, 0, 5, 4, b'a', b'b', b'c', b'd']);
        let message = read(&bytes).unwrap();
        assert_eq!(message.name(), b"www.example.com");
        assert_eq!((message.response, message.code, message.kind, message.answer_bytes), (true, 3, TXT, 5));
        assert_eq!(read(&bytes[..40]).unwrap().answer_bytes, 0);
        assert!(read(&bytes[..20]).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
