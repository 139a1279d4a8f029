//! Bytes from the system, shown to a person.

use core::fmt;

/// The lines of a text with their numbers, from 1, without their newlines.
pub(crate) fn numbered_lines(text: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    (1..=u32::MAX)
        .chain(core::iter::repeat(u32::MAX))
        .zip(text.split(|&byte| byte == b'\n'))
}

/// A number of decimal digits and nothing else; `None` also for one that the type cannot hold.
pub(crate) fn decimal<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    number.try_into().ok()
}

/// Bytes as a person can read them: valid UTF-8 as it is, control characters and other bytes as `\xNN`.
///
/// Nothing that is shown through it can start a new line in a log.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    let mut utf8 = [0; 4];
                    for byte in c.encode_utf8(&mut utf8).bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                } else {
                    fmt::Write::write_char(f, c)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}
