//! The ids of a span, and their binary form.

use std::fmt;

/// The flag that says the caller's tracer wants everything.
const DEBUG: u64 = 1;
/// The flag that says the sampling decision has been made.
const SAMPLING_KNOWN: u64 = 2;
/// The flag that says it was yes.
const SAMPLED: u64 = 4;

/// A span's ids, as they travel from hop to hop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceId {
    /// This span.
    pub span: u64,
    /// Its parent; equal to `span` at the root.
    pub parent: u64,
    /// The lower 64 bits of the trace's id.
    pub trace: u64,
    /// The upper 64 bits, for 128-bit trace ids.
    pub trace_high: Option<u64>,
    /// Bit 0 debug, bit 1 sampling known, bit 2 sampled.
    pub flags: u64,
}

impl TraceId {
    /// A new trace with a random id that is not zero.
    pub fn root() -> Self {
        let id = random_id();
        Self { span: id, parent: id, trace: id, trace_high: None, flags: 0 }
    }

    /// A new trace with a 128-bit id.
    pub fn root_128() -> Self {
        Self { trace_high: Some(random_id()), ..Self::root() }
    }

    /// A new span beneath this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: random_id(), parent: self.span, ..*self }
    }

    /// The parent's id, if there is a parent.
    pub fn parent(&self) -> Option<u64> {
        (self.parent != self.span && self.parent != 0).then_some(self.parent)
    }

    /// Whether the caller's tracer wants everything.
    pub fn is_debug(&self) -> bool {
        self.flags & DEBUG != 0
    }

    /// Whether these are ids at all: zero is none, to every collector there is.
    pub fn is_valid(&self) -> bool {
        self.span != 0 && (self.trace != 0 || self.trace_high.unwrap_or(0) != 0)
    }

    /// The sampling decision, if it has been made.
    pub fn sampled(&self) -> Option<bool> {
        if self.is_debug() {
            Some(true)
        } else {
            (self.flags & SAMPLING_KNOWN != 0).then_some(self.flags & SAMPLED != 0)
        }
    }

    /// The same span with a decision.
    #[must_use]
    pub fn with_sampled(mut self, yes: bool) -> Self {
        self.flags = (self.flags & !SAMPLED) | SAMPLING_KNOWN | if yes { SAMPLED } else { 0 };
        self
    }

    /// The same span with the flag that says the caller's tracer wants everything.
    #[must_use]
    pub fn with_debug(mut self) -> Self {
        self.flags |= DEBUG;
        self
    }

    /// From big-endian span, parent, trace, flags and, for 128-bit ids, the upper half (Finagle's form). Another length,
    /// or ids of zero, are no ids.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |i: usize| u64::from_be_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
        let trace_high = match bytes.len() {
            32 => None,
            40 => Some(word(4)),
            _ => return None,
        };
        let id = Self { span: word(0), parent: word(1), trace: word(2), trace_high, flags: word(3) };
        id.is_valid().then_some(id)
    }

    /// The same form; 40 bytes for a 128-bit id, else the first 32 of them.
    pub fn to_bytes(&self) -> ([u8; 40], usize) {
        let mut bytes = [0; 40];
        let words = [self.span, self.parent, self.trace, self.flags, self.trace_high.unwrap_or(0)];
        for (i, word) in words.iter().enumerate() {
            bytes[i * 8..i * 8 + 8].copy_from_slice(&word.to_be_bytes());
        }
        (bytes, if self.trace_high.is_some() { 40 } else { 32 })
    }

    /// The trace's id as hex digits: 32 for a 128-bit id, else the last 16 of them.
    pub fn trace_hex(&self) -> ([u8; 32], usize) {
        let mut digits = [0; 32];
        match self.trace_high {
            Some(high) => {
                digits[..16].copy_from_slice(&hex16(high));
                digits[16..].copy_from_slice(&hex16(self.trace));
                (digits, 32)
            }
            None => {
                digits[..16].copy_from_slice(&hex16(self.trace));
                (digits, 16)
            }
        }
    }
}

/// `<trace>.<span><:<parent>`, as Finagle prints an id.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(high) = self.trace_high {
            write!(f, "{high:016x}")?;
        }
        write!(f, "{:016x}.{:016x}<:{:016x}", self.trace, self.span, self.parent)
    }
}

/// A number as 16 lower-case hex digits.
pub fn hex16(n: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| DIGITS[(n >> (60 - 4 * i)) as usize & 15])
}

fn random_id() -> u64 {
    loop {
        let id = fastrand::u64(..);
        if id != 0 {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_is_no_id() {
        let good = TraceId { span: 3, parent: 2, trace: 1, trace_high: None, flags: 6 };
        assert_eq!(good.sampled(), Some(true));
        for bad in [
            TraceId { span: 0, ..good },
            TraceId { trace: 0, ..good },
            TraceId { trace: 0, trace_high: Some(0), ..good },
        ] {
            let (bytes, n) = bad.to_bytes();
            assert_eq!(TraceId::from_bytes(&bytes[..n]), None);
        }
        let wide = TraceId { trace: 0, trace_high: Some(1), ..good };
        assert!(wide.is_valid());
        assert_eq!(TraceId { parent: 0, ..good }.parent(), None);
        assert_eq!(TraceId::root().parent(), None);
        assert_eq!(good.child().parent(), Some(3));
    }

    #[test]
    fn ids_read_as_finagle_prints_them() {
        let id = TraceId { span: 3, parent: 2, trace: 1, trace_high: None, flags: 0 };
        assert_eq!(id.to_string(), "0000000000000001.0000000000000003<:0000000000000002");
        assert_eq!(id.sampled(), None);
        assert_eq!(id.with_sampled(false).sampled(), Some(false));
        assert_eq!(id.with_sampled(false).with_debug().sampled(), Some(true));
        let wide = TraceId { trace_high: Some(0xab), ..id };
        assert!(wide.to_string().starts_with("00000000000000ab0000000000000001.0"));
        let (digits, n) = wide.trace_hex();
        assert_eq!(&digits[..n], b"00000000000000ab0000000000000001");
    }

    proptest! {
        #[test]
        fn any_id_survives_its_bytes(span in 1u64.., parent: u64, trace in 1u64.., high: Option<u64>, flags in 0u64..8) {
            let id = TraceId { span, parent, trace, trace_high: high, flags };
            let (bytes, n) = id.to_bytes();
            prop_assert_eq!(TraceId::from_bytes(&bytes[..n]), Some(id));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            let _ = TraceId::from_bytes(&bytes);
        }
    }
}
