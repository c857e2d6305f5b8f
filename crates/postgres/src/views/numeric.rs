//! Numbers of any size, as sums of integers are.

use dacapo_store::Value;
use sqlx::error::BoxDynError;

/// Returns a number that PostgreSQL sends as `numeric`: an integer when it has no digits after the point, which is
/// exact or refused; otherwise the nearest float.
///
/// It is sent as the count of its digits, the power of the first one, its sign, the count of decimal digits after the
/// point, and then its digits, each of which is one to the base 10,000.
pub(super) fn value(bytes: &[u8]) -> Result<Value, BoxDynError> {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, power, sign, scale, digits @ ..] = words.as_slice() else { return Err("a numeric is cut off".into()) };
    if digits.len() != usize::from(*count) {
        return Err("a numeric is cut off".into());
    }
    let minus = match sign {
        0x0000 => "",
        0x4000 => "-",
        0xc000 => return Err("NaN cannot be read".into()),
        _ => return Ok(Value::Float(if *sign == 0xf000 { f64::NEG_INFINITY } else { f64::INFINITY })),
    };
    let power = i32::from(i16::from_be_bytes(power.to_be_bytes()));
    let digit = |of: i32| usize::try_from(power - of).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let mut text = minus.to_owned();
    (0..=power.max(0)).rev().for_each(|of| text.push_str(&format!("{:04}", digit(of))));
    if *scale == 0 {
        let whole = text.parse::<i64>();
        return whole
            .map(Value::Integer)
            .map_err(|_| format!("{text} does not fit in 64 bits: cast it to text").into());
    }
    text.push('.');
    (1..=i32::from(scale.div_ceil(4))).for_each(|of| text.push_str(&format!("{:04}", digit(-of))));
    Ok(Value::Float(text.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(power: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let words = [digits.len() as u16, power as u16, sign, scale];
        words.iter().chain(digits).flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn integers_are_exact_and_others_floats() {
        for (bytes, expected) in [
            (sent(0, 0, 0, &[]), Value::Integer(0)),
            (sent(1, 0, 0, &[1]), Value::Integer(10_000)),
            (sent(4, 0x4000, 0, &[922, 3372, 368, 5477, 5808]), Value::Integer(i64::MIN)),
            (sent(0, 0, 4, &[2, 5000]), Value::Float(2.5)),
            (sent(-1, 0x4000, 2, &[500]), Value::Float(-0.05)),
            (sent(-2, 0, 6, &[100]), Value::Float(0.000_001)),
            (sent(0, 0xd000, 0, &[]), Value::Float(f64::INFINITY)),
        ] {
            assert_eq!(value(&bytes).unwrap(), expected);
        }
        for bytes in
            [sent(4, 0, 0, &[922, 3372, 368, 5477, 5808]), sent(0, 0xc000, 0, &[]), vec![0, 1, 0, 0, 0, 0, 0, 0]]
        {
            value(&bytes).unwrap_err();
        }
    }
}
