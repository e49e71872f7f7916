//! Numbers and instants as they stand in JSON: 64-bit numbers as text, since they do not fit a double, and floats that read back to
//! the bit.

use serde::{Deserialize, Deserializer, Serializer};
use serde_json::value::RawValue;

/// An instant in UTC, to the nanosecond it has.
#[must_use]
pub fn instant(ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| format!("{ns} ns"), |at| at.to_string())
}

/// A `u64` as text.
pub mod number {
    use super::{Deserialize, Deserializer, Serializer};
    use serde::de::Error;

    /// Writes it.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is no text of digits.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom(format_args!("`{text}` is no number of 64 bits")))
    }
}

/// An `f64` that reads back to the bit: the usual reader of JSON may miss by one unit in the last place.
pub mod exact {
    use super::{Deserialize, Deserializer, RawValue, Serializer};
    use serde::de::Error;

    /// Writes it.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(*value)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is no finite number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        match raw.get().parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(D::Error::custom(format_args!("`{}` is no finite number", raw.get()))),
        }
    }
}

/// The bits of an `f64` as 16 hexadecimal digits.
pub mod bits {
    use super::{Deserialize, Deserializer, Serializer};
    use serde::de::Error;

    /// Writes them.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:016x}"))
    }

    /// Reads them.
    ///
    /// # Errors
    /// When it is no text of hexadecimal digits.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16)
            .map_err(|_| D::Error::custom(format_args!("`{text}` is no hexadecimal number")))
    }
}

/// `text`, at most `bytes_max` long, cut between characters.
#[must_use]
pub fn bounded(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Serialize;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct All {
        #[serde(with = "number")]
        number: u64,
        #[serde(with = "exact")]
        exact: f64,
        #[serde(with = "bits")]
        bits: u64,
    }

    proptest! {
        #[test]
        fn numbers_come_back_to_the_bit(number in any::<u64>(), exact in any::<f64>(), bits in any::<u64>()) {
            prop_assume!(exact.is_finite());
            let all = All { number, exact, bits };
            let text = serde_json::to_string(&all).unwrap();
            let back: All = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.exact.to_bits(), exact.to_bits());
            prop_assert_eq!(back, all);
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(bounded("aäb", 2), "a");
        assert_eq!(bounded("aäb", 3), "aä");
        assert_eq!(bounded("ab", 9), "ab");
    }
}
