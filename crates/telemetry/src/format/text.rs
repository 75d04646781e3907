//! Appending text: a page is a few pieces a line, most of them short.

/// Appends an integer.
#[inline(always)]
pub(crate) fn push_u64(out: &mut Vec<u8>, n: u64) {
    if n >= EIGHT {
        return push_long(out, n);
    }
    let digits = digits(n);
    // One digit is written, even of a zero.
    let zeros = (digits | 1 << 56).trailing_zeros() / 8;
    // All eight bytes, which is one move, and back again: a copy of so many as there are digits would be a call.
    out.extend_from_slice(&((digits + ZEROS) >> (8 * zeros)).to_le_bytes());
    out.truncate(out.len() - zeros as usize);
}

/// The same for a number of nine digits or more.
#[cold]
#[inline(never)]
fn push_long(out: &mut Vec<u8>, n: u64) {
    push_u64(out, n / EIGHT);
    out.extend_from_slice(&(digits(n % EIGHT) + ZEROS).to_le_bytes());
}

/// Appends a line: `head`, `labels`, a bracket and a blank, `n`. The head ends with the other bracket.
#[inline(always)]
pub(crate) fn push_line(out: &mut Vec<u8>, head: &[u8], labels: &[u8], n: u64) {
    push_pieces(out, head, labels, *b"} ", n, *b"\n");
}

/// Appends all of these.
#[inline(always)]
pub(crate) fn push_pieces<const M: usize, const E: usize>(
    out: &mut Vec<u8>,
    head: &[u8],
    rest: &[u8],
    middle: [u8; M],
    n: u64,
    end: [u8; E],
) {
    out.extend_from_slice(head);
    out.extend_from_slice(rest);
    out.extend_from_slice(&middle);
    push_u64(out, n);
    out.extend_from_slice(&end);
}

/// A digit's character is this much more than the digit.
const ZEROS: u64 = u64::from_le_bytes(*b"00000000");
/// Numbers below have at most eight digits, which fit into a register.
const EIGHT: u64 = 100_000_000;

/// The eight digits of a number below 10^8, the first one lowest: split in halves three times over, all parts at once.
#[inline(always)]
fn digits(n: u64) -> u64 {
    let fours = (n / 10_000) | ((n % 10_000) << 32);
    // A hundredth, by multiplication: right for what has four digits; and then a tenth, for what has two.
    let upper = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = upper + ((fours - 100 * upper) << 16);
    let upper = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    upper + ((twos - 10 * upper) << 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        let near = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, (1 << bit) + 1]);
        let tens = (0..20).map(|n| 10_u64.pow(n)).flat_map(|n| [n - 1, n, n + 1, n / 3, n.wrapping_mul(9)]);
        // And some of every length, with a stride that has no factor in common with ten.
        let many = (0..if cfg!(miri) { 200 } else { 20_000 })
            .map(|n| n * 7_919_777_783_u64)
            .flat_map(|n| [n, n % 100_000_000, n % 10_000]);
        for n in near.chain(tens).chain(many).chain([0, 7, 42, 100, 12_345_678_901_234_567_890, u64::MAX]) {
            let (mut number, mut line) = (b"x".to_vec(), b"y".to_vec());
            push_u64(&mut number, n);
            push_line(&mut line, b"name{", b"a=\"b\"", n);
            assert_eq!(number, format!("x{n}").into_bytes());
            assert_eq!(line, format!("yname{{a=\"b\"}} {n}\n").into_bytes());
        }
    }
}
