//! Exact arithmetic on decimals: an `i128` mantissa at a scale.

/// 10 to the `n`, for n ≤ 38.
pub(super) fn pow10(n: u8) -> i128 {
    10i128.pow(u32::from(n.min(38)))
}

/// Moves a mantissa to another scale, rounding half away from zero; `None` if it overflows.
pub(super) fn rescale(mantissa: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        mantissa.checked_mul(pow10(to - from))
    } else {
        Some(divide_rounded(mantissa, pow10(from - to)))
    }
}

/// Moves a mantissa to another scale, cutting digits off.
pub(super) fn rescale_truncated(mantissa: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from { mantissa.checked_mul(pow10(to - from)) } else { Some(mantissa / pow10(from - to)) }
}

fn divide_rounded(value: i128, by: i128) -> i128 {
    let (quotient, rest) = (value / by, value % by);
    if rest.unsigned_abs() * 2 >= by.unsigned_abs() {
        quotient + value.signum() * by.signum()
    } else {
        quotient
    }
}

/// Whether a mantissa has at most `precision` digits.
pub(super) fn fits(mantissa: i128, precision: u16) -> bool {
    precision >= 38 && mantissa.unsigned_abs() < 10u128.pow(38)
        || mantissa.unsigned_abs() < 10u128.pow(u32::from(precision.min(38)))
}

/// `a * b`, at scale `to`.
pub(super) fn multiply(a: (i128, u8), b: (i128, u8), to: u8) -> Option<i128> {
    let scale = a.1 + b.1;
    match a.0.checked_mul(b.0) {
        Some(product) if scale <= 76 && scale >= to && scale - to > 38 => {
            Some(divide_rounded(divide_rounded(product, pow10(38)), pow10(scale - to - 38)))
        }
        Some(product) => rescale(product, scale, to),
        None => {
            // Too wide for 128 bits: give up digits that the result does not keep anyway.
            let drop = (scale.saturating_sub(to)) / 2 + 1;
            let (da, db) = (drop.min(a.1), drop.min(b.1));
            let product = divide_rounded(a.0, pow10(da)).checked_mul(divide_rounded(b.0, pow10(db)))?;
            rescale(product, scale - da - db, to)
        }
    }
}

/// `a / b` at scale `to`, cut off as SQL Server does; `None` if it overflows. `b` is not zero.
pub(super) fn divide(a: (i128, u8), b: (i128, u8), to: u8) -> Option<i128> {
    // a/10^sa / (b/10^sb) * 10^to = a * 10^(to + sb - sa) / b, by long division so that nothing overflows early.
    let shift = i32::from(to) + i32::from(b.1) - i32::from(a.1);
    if shift < 0 {
        return Some(a.0 / pow10((-shift) as u8) / b.0);
    }
    let (mut quotient, mut rest) = (a.0 / b.0, a.0 % b.0);
    for _ in 0..shift {
        rest = rest.checked_mul(10)?;
        quotient = quotient.checked_mul(10)?.checked_add(rest / b.0)?;
        rest %= b.0;
    }
    Some(quotient)
}

/// The digits with the decimal point.
pub(super) fn to_text(mantissa: i128, scale: u8) -> String {
    let digits = mantissa.unsigned_abs().to_string();
    let sign = if mantissa < 0 { "-" } else { "" };
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let scale = usize::from(scale);
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Reads `-12.50`; returns mantissa and scale as written.
pub(super) fn parse(text: &str) -> Option<(i128, u8)> {
    let text = text.trim();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 60 {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = fraction;
    if whole.len() + fraction.len() > 38 {
        fraction = &fraction[..38usize.checked_sub(whole.len())?];
    }
    let mut mantissa: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    Some((if negative { -mantissa } else { mantissa }, fraction.len() as u8))
}

/// The nearest decimal of a float at a scale.
pub(super) fn from_f64(value: f64, scale: u8) -> Option<i128> {
    if !value.is_finite() || value.abs() >= 1e38 {
        return None;
    }
    let (mantissa, written) = parse(&format!("{value:.*}", usize::from(scale)))?;
    rescale(mantissa, written, scale)
}

/// The nearest float.
pub(super) fn to_f64(mantissa: i128, scale: u8) -> f64 {
    to_text(mantissa, scale).parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_keeps_the_digits_of_the_result_type() {
        assert_eq!(divide((10, 0), (3, 0), 6), Some(3_333_333));
        assert_eq!(divide((-75, 1), (25, 1), 2), Some(-300));
    }

    #[test]
    fn text_and_mantissa_are_the_same_number() {
        for text in ["0.05", "-12.50", "99999999999999999999999999999999999999", "1.5"] {
            let (mantissa, scale) = parse(text).unwrap();
            assert_eq!(to_text(mantissa, scale), text);
        }
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        assert_eq!(rescale(25, 1, 0), Some(3));
        assert_eq!(rescale(-25, 1, 0), Some(-3));
        assert_eq!(rescale(24, 1, 0), Some(2));
    }
}
