//! Ids in hexadecimal.

/// The last `N` digits of a number, in lower case.
pub fn hex<const N: usize>(bits: u128) -> [u8; N] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| DIGITS[(bits >> (4 * (N - 1 - i))) as usize & 15])
}

/// The bytes that a text of digits stands for, in whatever case; `None` if it is no text of `N` bytes.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        for digit in pair {
            *byte = *byte << 4 | u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        let bits = 0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978;
        assert_eq!(hex::<32>(bits), *format!("{bits:032x}").as_bytes());
        assert_eq!((unhex("0fA0"), unhex::<2>("0fA"), unhex::<2>("0fAg")), (Some([0x0f, 0xa0]), None, None));
        assert_eq!((&hex::<16>(bits), &hex::<2>(1)), (b"0f1e2d3c4b5a6978", b"01"));
    }
}
