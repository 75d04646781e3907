//! Numbers as text: integers, and floats as Java prints them, which is what readers of Linkerd 1's pages are used to.

pub(crate) use crate::format::text::push_u64;

/// Appends a finite double in Java's layout: always with a decimal point, plain from 10^-3 up to but not including 10^7,
/// otherwise `d.dddE±n` without a plus sign or padding; the shortest digits that read back as the same number.
///
/// For what is not finite Java's words are written; faces that can't have them must not call this.
pub(crate) fn push_java(out: &mut Vec<u8>, x: f64) {
    if x.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if x.is_sign_negative() {
        out.push(b'-');
    }
    let x = x.abs();
    if x.is_infinite() {
        return out.extend_from_slice(b"Infinity");
    }
    if x < 1e7 && x == x.trunc() {
        // What most gauges are.
        push_u64(out, x as u64);
        return out.extend_from_slice(b".0");
    }
    let mut text = zmij::Buffer::new();
    let (digits, len, exponent) = digits(text.format_finite(x));
    let digits = &digits[..len];
    match exponent {
        // The value is 0.DIGITS times ten to the exponent.
        -2..=0 => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + exponent.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits);
        }
        1..=7 => {
            let whole = (exponent as usize).min(len);
            out.extend_from_slice(&digits[..whole]);
            out.resize(out.len() + exponent as usize - whole, b'0');
            out.push(b'.');
            out.extend_from_slice(if whole < len { &digits[whole..] } else { b"0" });
        }
        _ => {
            out.extend_from_slice(&[digits[0], b'.']);
            out.extend_from_slice(if len > 1 { &digits[1..] } else { b"0" });
            out.push(b'E');
            out.extend_from_slice(itoa::Buffer::new().format(exponent - 1).as_bytes());
        }
    }
}

/// The significant digits of a number as `zmij` prints it, how many there are, and the exponent `e` for which it is
/// `0.DIGITS * 10^e`.
fn digits(text: &str) -> ([u8; LONGEST], usize, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let mut exponent: i32 = exponent.parse().unwrap_or(0);
    exponent += mantissa.find('.').unwrap_or(mantissa.len()) as i32;
    let mut digits = [0; LONGEST];
    let mut len = 0;
    for byte in mantissa.bytes().filter(u8::is_ascii_digit) {
        if byte == b'0' && len == 0 {
            exponent -= 1;
        } else if len < LONGEST {
            digits[len] = byte;
            len += 1;
        }
    }
    while len > 1 && digits[len - 1] == b'0' {
        len -= 1;
    }
    (digits, len, exponent)
}

/// More than `zmij`'s own buffer holds.
const LONGEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn java(x: f64) -> String {
        let mut out = Vec::new();
        push_java(&mut out, x);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_print_as_java_prints_them() {
        #[rustfmt::skip]
        let samples = [
            (0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (-1.0, "-1.0"), (0.5, "0.5"), (100.0, "100.0"),
            (9_999_999.0, "9999999.0"), (1e7, "1.0E7"), (16_777_216.0, "1.6777216E7"), (1.48832833e12, "1.48832833E12"),
            (0.001, "0.001"), (0.0001, "1.0E-4"), (2.5e-4, "2.5E-4"), (17.5, "17.5"),
            (33.333333333333336, "33.333333333333336"), (12_345_678.9, "1.23456789E7"), (0.012, "0.012"), (0.12, "0.12"),
            (1234567.875, "1234567.875"), (f64::MAX, "1.7976931348623157E308"), (5e-324, "5.0E-324"),
            (1e23, "1.0E23"), (f64::NAN, "NaN"), (f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (x, text) in samples {
            assert_eq!(java(x), text);
        }
    }

    proptest! {
        #[test]
        fn any_double_reads_back_and_has_javas_layout(bits in any::<u64>(), small in -1e9_f64..1e9) {
            for x in [f64::from_bits(bits), small, small / 1e7] {
                prop_assume!(x.is_finite());
                let text = java(x);
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), x.to_bits(), "{}", text);
                let plain = (1e-3..1e7).contains(&x.abs()) || x == 0.0;
                prop_assert_eq!(plain, !text.contains('E'));
                let mantissa = text.split('E').next().unwrap();
                let (whole, fraction) = mantissa.split_once('.').unwrap();
                prop_assert!(!whole.is_empty() && !fraction.is_empty());
                prop_assert!(fraction == "0" || !fraction.ends_with('0'));
                prop_assert!(plain || whole.trim_start_matches('-').len() == 1);
            }
        }
    }
}
