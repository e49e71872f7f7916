//! One record as JSON, in the manner of exchange feeds: prices, sizes and sums are decimal text, times too, because neither
//! fits a double.

use jiff::Timestamp;
use std::fmt::Write;
use tidegate_engine::{BarState, Cause, Output, Price, Size, output_kind};
use tidegate_proto::StreamKind;
use tidegate_proto::hub::StreamMeta;

/// A stream as it is shown.
#[derive(Debug)]
pub(crate) struct StreamView {
    pub(crate) meta: StreamMeta,
    /// Whether it can be asked for.
    pub(crate) open: bool,
    /// The name, quoted.
    quoted: String,
    /// Columns, quoted.
    columns: Vec<String>,
    /// Length of its windows, where the name says it.
    pub(crate) width_ns: Option<u64>,
}

impl StreamView {
    pub(crate) fn new(meta: &StreamMeta, open: bool) -> Self {
        Self {
            open,
            quoted: quote(&meta.name),
            columns: meta.columns.iter().map(|column| quote(column)).collect(),
            width_ns: meta.name.rsplit_once('.').and_then(|(_, width)| width_ns(width)),
            meta: meta.clone(),
        }
    }

    pub(crate) fn kind_name(&self) -> &'static str {
        match self.meta.kind {
            StreamKind::Bars | StreamKind::MeasureBars => "bars",
            StreamKind::Values => "values",
            StreamKind::Integers => "integers",
            StreamKind::Hosts => "hosts",
        }
    }
}

/// Text as JSON has it.
pub(crate) fn quote(text: &str) -> String {
    // Text always has a form in JSON.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// The width that a name such as `bars.250ms` ends in.
fn width_ns(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let unit_ns: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    count.parse::<u64>().ok()?.checked_mul(unit_ns).filter(|&width| width > 0)
}

/// Appends a record. `key` is quoted already.
pub(crate) fn write_record(out: &mut String, stream: &StreamView, key: &str, output: &Output) {
    // Writing to memory cannot fail.
    let _ = try_write(out, stream, key, output);
}

fn try_write(out: &mut String, stream: &StreamView, key: &str, output: &Output) -> std::fmt::Result {
    let (slot, sequence, ts) = (output.slot, output.sequence, output.ts);
    write!(out, "{{\"key\":{key},\"stream\":{},\"slot\":{slot},\"seq\":{sequence}", stream.quoted)?;
    if output.kind == output_kind::BAR {
        write!(out, ",\"ts_open\":\"{}\"", output.bar().ts_open)?;
    } else if output.kind == output_kind::HOST {
        write!(out, ",\"ts_open\":\"{}\"", output.words[0])?;
    }
    write!(out, ",\"ts\":\"{ts}\",\"time\":")?;
    match Timestamp::from_nanosecond(i128::from(ts)) {
        Ok(time) => write!(out, "\"{time}\"")?,
        Err(_) => out.push_str("null"),
    }
    if output.kind == output_kind::LATE {
        let [event, price, size, ..] = output.words;
        let (price, size) = (Price(price as i64), Size(size));
        write!(
            out,
            ",\"state\":\"late\",\"late\":{{\"ts\":\"{event}\",\"price\":\"{price}\",\"size\":\"{size}\"}}}}"
        )?;
        return Ok(());
    }
    write!(
        out,
        ",\"state\":\"{}\",\"cause\":\"{}\"",
        BarState::name(output.state),
        Cause::name(output.cause)
    )?;
    let used = usize::from(output.count).min(output.words.len());
    match output.kind {
        output_kind::BAR => {
            let bar = output.bar();
            write!(
                out,
                ",\"closed\":{},\"open\":\"{}\",\"high\":\"{}\",\"low\":\"{}\",\"close\":\"{}\",\"volume\":\"{}\",\
                 \"buy_volume\":\"{}\",\"notional\":\"{}\"",
                output.state != BarState::Forming as u8,
                Price(bar.open),
                Price(bar.high),
                Price(bar.low),
                Price(bar.close),
                bar.volume(),
                bar.buy_volume(),
                Decimal17(bar.notional().0),
            )?;
            match bar.vwap() {
                Some(vwap) => write!(out, ",\"vwap\":\"{vwap}\"")?,
                None => out.push_str(",\"vwap\":null"),
            }
            write!(out, ",\"trades\":{},\"rev\":{},\"missing\":{}", bar.trades, bar.revision, bar.missing)?;
            if stream.meta.kind == StreamKind::MeasureBars {
                write!(out, ",\"first_trade\":{}", bar.first_trade)?;
            }
        }
        output_kind::VALUES => {
            let values = output.values().map(Number);
            write_values(out, stream.columns.iter().zip(values))?;
        }
        output_kind::HOST => {
            // The first is where the window opened, which was said above.
            write_values(out, stream.columns.iter().zip(&output.words[..used]).skip(1))?;
        }
        _ => write_values(out, stream.columns.iter().zip(&output.words[..used]))?,
    }
    out.push('}');
    Ok(())
}

fn write_values<'c, V: std::fmt::Display>(
    out: &mut String,
    values: impl Iterator<Item = (&'c String, V)>,
) -> std::fmt::Result {
    out.push_str(",\"values\":{");
    for (at, (column, value)) in values.enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, "{comma}{column}:{value}")?;
    }
    out.push('}');
    Ok(())
}

/// A float as JSON has it: null for what is not finite.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.is_finite() {
            true => write!(f, "{}", self.0),
            false => f.write_str("null"),
        }
    }
}

/// A sum in units of 1e-17, as decimal text.
struct Decimal17(i128);

impl std::fmt::Display for Decimal17 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNIT: u128 = 10u128.pow(17);
        let magnitude = self.0.unsigned_abs();
        let (whole, fraction) = (magnitude / UNIT, magnitude % UNIT);
        if self.0 < 0 {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if fraction != 0 {
            let digits = format!("{fraction:017}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use tidegate_engine::BarWords;
    use tidegate_engine::output::{OUTPUT_WORDS, split};

    fn stream(kind: StreamKind, columns: &[&str]) -> StreamView {
        let columns = columns.iter().map(ToString::to_string).collect();
        StreamView::new(&StreamMeta { name: "s\"x.250ms".into(), kind, columns }, true)
    }

    fn json(stream: &StreamView, output: &Output) -> Value {
        let mut out = String::new();
        write_record(&mut out, stream, &quote("K\n\"é"), output);
        serde_json::from_str(&out).unwrap()
    }

    #[test]
    fn widths_come_from_names() {
        let found = ["1s", "250ms", "1m", "1h", "1d", "0s", "s", "1000t", "1x", "99999999999999999999s"]
            .map(width_ns);
        let second = 1_000_000_000;
        let want = [second, second / 4, 60 * second, 3_600 * second, 86_400 * second].map(Some);
        assert_eq!((&found[..5], &found[5..]), (&want[..], &[None; 5][..]));
    }

    #[test]
    fn what_is_not_a_number_is_null() {
        let mut words = [0; OUTPUT_WORDS];
        words[..3].copy_from_slice(&[f64::NAN.to_bits(), 0.1f64.to_bits(), f64::NEG_INFINITY.to_bits()]);
        let output = Output { kind: output_kind::VALUES, count: 3, words, ..Output::default() };
        let found = json(&stream(StreamKind::Values, &["a", "b\"", "c"]), &output);
        assert_eq!(found["values"], serde_json::json!({"a": null, "b\"": 0.1, "c": null}));
        assert_eq!(found["key"], "K\n\"é");
        assert_eq!(found["stream"], "s\"x.250ms");
    }

    #[test]
    fn a_late_trade_shows_itself() {
        let mut words = [0; OUTPUT_WORDS];
        words[..3].copy_from_slice(&[7, 1_500_000_000, 250_000_000]);
        let output = Output { kind: output_kind::LATE, count: 5, words, ..Output::default() };
        let found = json(&stream(StreamKind::Bars, &[]), &output);
        assert_eq!(found["late"], serde_json::json!({"ts": "7", "price": "1.5", "size": "2.5"}));
    }

    proptest! {
        /// Whatever the words say it is JSON, and what is decimal text reads back as the same number.
        #[test]
        fn any_words_give_json(
            words in proptest::array::uniform16(any::<u64>()), kind in 0u8..8, count in any::<u8>(), ts in any::<u64>(),
            state in any::<u8>(), cause in any::<u8>(),
        ) {
            let output = Output { kind, count, words, ts, state, cause, ..Output::default() };
            let columns: Vec<String> = (0..16).map(|at| format!("c{at}")).collect();
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            let found = json(&stream(StreamKind::Values, &columns), &output);
            prop_assert_eq!(&found["ts"], &Value::from(ts.to_string()));
            if kind == output_kind::BAR {
                let price = |field: &str| Price::parse(found[field].as_str().unwrap().as_bytes()).unwrap().0;
                prop_assert_eq!(price("open"), words[1] as i64);
                prop_assert_eq!(price("close"), words[4] as i64);
            }
        }

        /// Decimal text of a sum is the sum: digits without the point, and the point where it belongs.
        #[test]
        fn sums_are_exact(sum in any::<i128>(), shift in 0u32..127) {
            let sum = sum >> shift;
            let bar = BarWords { notional: split(sum as u128), ..BarWords::default() };
            let output = Output { kind: output_kind::BAR, count: 16, words: bar.to_words(), ..Output::default() };
            let found = json(&stream(StreamKind::Bars, &[]), &output);
            let text = found["notional"].as_str().unwrap();
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            prop_assert!(!fraction.ends_with('0') && fraction.len() <= 17);
            let digits = format!("{whole}{fraction:0<17}");
            prop_assert_eq!(digits.parse::<i128>().unwrap(), sum);
        }
    }
}
