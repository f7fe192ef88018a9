//! Lists of what a client likes, with weights: `Accept`, `Accept-Encoding` (RFC 9110, section 12.4.2).

/// The elements of a field's line, each with its weight in thousandths: 1000 where it has none, 0 where that is no weight.
pub fn weighted(line: &[u8]) -> impl Iterator<Item = (&[u8], u16)> {
    line.split(|byte| *byte == b',').filter_map(|element| {
        let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().filter(|name| !name.is_empty())?;
        Some((name, parts.find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q="))).map_or(1000, weight)))
    })
}

/// `0`, `0.5`, `1.000`: at most three digits behind the dot.
fn weight(text: &[u8]) -> u16 {
    let (whole, rest) = text.split_at(text.len().min(1));
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return 0,
    };
    let thousandths = digits.iter().zip([100, 10, 1]).map(|(digit, unit)| u16::from(digit - b'0') * unit).sum();
    match (whole, thousandths) {
        (b"0", thousandths) => thousandths,
        (b"1", 0) => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_from_nothing_to_one() {
        let all = |line: &'static str| weighted(line.as_bytes()).map(|(_, weight)| weight).collect::<Vec<_>>();
        assert_eq!(all("a, b;q=0.5,c;Q=0.125 , d;x=y;q=1.000,e;q=0"), [1000, 500, 125, 1000, 0]);
        assert_eq!(all("a;q=9, b;q=inf, c;q=1.5, d;q=x, e;q=, f;q=0.1234, g;q=-1"), [0; 7]);
        assert_eq!(weighted(b" text/html ;q=0.3,, ").collect::<Vec<_>>(), [(&b"text/html"[..], 300)]);
    }
}
