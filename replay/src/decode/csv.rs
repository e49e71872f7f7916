//! Trades from CSV.
//!
//! Lines without a quote are split on the delimiter by bytes; a line with one goes through the `csv` crate, so quoted
//! delimiters, doubled quotes and line breaks inside quotes mean what they mean everywhere.

use super::ReadOptions;
use super::columns::{Columns, TsColumn, resolve, side_flag};
use super::core::{ByLine, Core, DecodeLine, Reader, Refusal, trade};
use super::input::{Input, Line};
use super::text::{TimeForm, parse_price, parse_size, shown};
use crate::source::{Place, ReadError, RejectCause};
use tidegate_engine::{Event, Price, Size};

pub(super) struct Csv {
    columns: Columns,
    /// Columns to look at: the largest index wanted, plus one.
    width: usize,
    delimiter: u8,
    time: TimeForm,
    price_factor: i64,
    size_factor: u64,
    /// Symbol of the file when no column has it.
    symbol: Option<Vec<u8>>,
    /// End of each of the first `width` fields of the row at hand.
    ends: Vec<usize>,
    joined: Vec<u8>,
    /// Lines of a record whose quoted field is still open, and the line it began on.
    pending: Vec<u8>,
    pending_line: u64,
    pending_max: usize,
}

/// Reads the header and finds the columns.
pub(super) fn open(
    mut input: Input,
    core: Core,
    options: &ReadOptions,
) -> Result<Reader<ByLine<Csv>>, ReadError> {
    let path = core.path().to_path_buf();
    let header = loop {
        match input.next_line()? {
            Some(Line::Text([])) => {}
            Some(Line::Text(line)) => break line.to_vec(),
            Some(Line::TooLong(bytes)) => {
                let reason = format!("a header of {bytes} bytes; the limit is {}", options.line_bytes_max);
                return Err(ReadError::Limit { path, place: Place::Line(1), reason });
            }
            None => {
                let reason = "it holds no line, not even a header".to_owned();
                return Err(ReadError::Columns { path, reason });
            }
        }
    };
    let delimiter = pick_delimiter(&header);
    let headers = split_record(&header, delimiter)
        .map(|record| {
            record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect::<Vec<_>>()
        })
        .unwrap_or_default();
    let columns = resolve(&headers, &options.map).map_err(|mut reason| {
        if headers.iter().any(|header| header.trim().parse::<f64>().is_ok()) {
            reason.push_str(". The first line looks like a row; Tidegate needs a header line");
        }
        ReadError::Columns { path: path.clone(), reason }
    })?;
    let symbol = columns.symbol.is_none().then(|| super::symbol_from_path(&path).into_bytes());
    let ts_width = match columns.ts {
        TsColumn::One(at) => at,
        TsColumn::DateAndTime(date, time) => date.max(time),
    };
    let side_at = columns.side.map_or(0, |(at, _)| at);
    let width =
        1 + ts_width.max(columns.price).max(columns.size).max(columns.symbol.unwrap_or(0)).max(side_at);
    let decoder = Csv {
        width,
        columns,
        delimiter,
        time: TimeForm::default(),
        price_factor: 10i64.pow(u32::from(options.map.price_exponent.unsigned_abs().min(9))),
        size_factor: 10u64.pow(u32::from(options.map.size_exponent.unsigned_abs().min(8))),
        symbol,
        ends: Vec::with_capacity(width),
        joined: Vec::new(),
        pending: Vec::new(),
        pending_line: 0,
        pending_max: options.line_bytes_max,
    };
    Ok(Reader::new(core, ByLine { input, decoder }))
}

/// The delimiter the header uses most.
fn pick_delimiter(header: &[u8]) -> u8 {
    let count = |delimiter: u8| header.iter().filter(|&&byte| byte == delimiter).count();
    // The comma comes last so that it wins a tie.
    [b'|', b'\t', b';', b','].into_iter().max_by_key(|&delimiter| count(delimiter)).unwrap_or(b',')
}

fn split_record(bytes: &[u8], delimiter: u8) -> Option<::csv::ByteRecord> {
    let mut reader =
        ::csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(bytes);
    let mut record = ::csv::ByteRecord::new();
    reader.read_byte_record(&mut record).ok().filter(|&found| found)?;
    Some(record)
}

/// Whether the record ends inside quotes: a quote counts only where a field begins with one.
fn quote_is_open(record: &[u8], delimiter: u8) -> bool {
    let mut field_start = true;
    let mut inside = false;
    let mut bytes = record.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if inside {
            if byte == b'"' {
                if bytes.peek() == Some(&&b'"') {
                    bytes.next();
                } else {
                    inside = false;
                }
            }
        } else if byte == b'"' && field_start {
            inside = true;
        }
        field_start = !inside && byte == delimiter;
    }
    inside
}

#[inline]
fn trim(mut field: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = field {
        field = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = field {
        field = rest;
    }
    field
}

struct Row<'a> {
    ts: &'a [u8],
    symbol: Option<&'a [u8]>,
    price: &'a [u8],
    size: &'a [u8],
    side: Option<&'a [u8]>,
}

impl Csv {
    #[inline]
    fn plain(&mut self, core: &mut Core, line: &[u8], number: u64, events: &mut Vec<Event>) {
        self.ends.clear();
        let mut from = 0;
        while self.ends.len() < self.width {
            // Fields are short, so a plain loop beats a call to a vectorised search.
            let mut at = from;
            while at < line.len() && line[at] != self.delimiter {
                at += 1;
            }
            self.ends.push(at);
            if at == line.len() {
                break;
            }
            from = at + 1;
        }
        if self.ends.len() < self.width {
            let (found, wanted) = (self.ends.len(), self.width);
            return core.refuse(RejectCause::Malformed, Place::Line(number), || {
                format!("{found} columns, at least {wanted} needed: `{}`", shown(line))
            });
        }
        let ends = std::mem::take(&mut self.ends);
        let field = |at: usize| trim(&line[if at == 0 { 0 } else { ends[at - 1] + 1 }..ends[at]]);
        self.row(core, field, number, events);
        self.ends = ends;
    }

    #[cold]
    fn quoted(&mut self, core: &mut Core, record: &[u8], number: u64, events: &mut Vec<Event>) {
        match split_record(record, self.delimiter).filter(|fields| fields.len() >= self.width) {
            Some(fields) => self.row(core, |at| trim(fields.get(at).unwrap_or_default()), number, events),
            None => core.refuse(RejectCause::Malformed, Place::Line(number), || {
                format!("too few columns or broken quotes: `{}`", shown(record))
            }),
        }
    }

    #[inline]
    fn row<'a>(
        &mut self,
        core: &mut Core,
        field: impl Fn(usize) -> &'a [u8],
        number: u64,
        events: &mut Vec<Event>,
    ) {
        let mut joined = std::mem::take(&mut self.joined);
        let ts = match self.columns.ts {
            TsColumn::One(at) => field(at),
            TsColumn::DateAndTime(date, time) => {
                joined.clear();
                joined.extend_from_slice(field(date));
                joined.push(b' ');
                joined.extend_from_slice(field(time));
                &joined
            }
        };
        let row = Row {
            ts,
            symbol: self.columns.symbol.map(&field),
            price: field(self.columns.price),
            size: field(self.columns.size),
            side: self.columns.side.map(|(at, _)| field(at)),
        };
        match self.event(core, &row) {
            Ok(Some(event)) => core.accept_one(events, event),
            Ok(None) => core.refuse_filtered(),
            Err(refusal) => core.refuse_with(refusal, Place::Line(number)),
        }
        self.joined = joined;
    }

    #[inline]
    fn event(&mut self, core: &mut Core, row: &Row<'_>) -> Result<Option<Event>, Refusal> {
        let ts = self.time.parse(row.ts)?;
        if core.outside(ts) {
            return Ok(None);
        }
        let (price, size) = (self.price(row.price)?, self.size(row.size)?);
        let flags = match (row.side, self.columns.side) {
            (Some(text), Some((_, meaning))) => side_flag(text, meaning),
            _ => 0,
        };
        let key = match (row.symbol, &self.symbol) {
            (Some(symbol), _) => core.key(symbol)?,
            (None, Some(symbol)) => core.key(symbol)?,
            (None, None) => 0,
        };
        trade(ts, key, price, size, flags).map(Some)
    }

    #[inline]
    fn price(&self, text: &[u8]) -> Result<Price, Refusal> {
        if self.price_factor == 1 {
            return parse_price(text);
        }
        let whole = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
        let whole = whole.ok_or_else(|| not_an_integer("price", text))?;
        // 1e-9 is the unit itself; every coarser power is a multiple of it.
        let unit = 1_000_000_000 / self.price_factor;
        whole
            .checked_mul(unit)
            .map(Price)
            .ok_or_else(|| (RejectCause::OutOfRange, format!("price `{}` is out of range", shown(text))))
    }

    #[inline]
    fn size(&self, text: &[u8]) -> Result<Size, Refusal> {
        if self.size_factor == 1 {
            return parse_size(text);
        }
        let whole = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
        let whole = whole.ok_or_else(|| not_an_integer("size", text))?;
        whole
            .checked_mul(100_000_000 / self.size_factor)
            .map(Size)
            .ok_or_else(|| (RejectCause::OutOfRange, format!("size `{}` is out of range", shown(text))))
    }
}

fn not_an_integer(what: &str, text: &[u8]) -> Refusal {
    (RejectCause::BadNumber, format!("{what} `{}` is no integer, as `@1e…` in the map promises", shown(text)))
}

impl DecodeLine for Csv {
    #[inline]
    fn line(&mut self, core: &mut Core, line: &[u8], number: u64, events: &mut Vec<Event>) {
        if self.pending.is_empty() && memchr::memchr(b'"', line).is_none() {
            return self.plain(core, line, number, events);
        }
        if self.pending.is_empty() {
            self.pending_line = number;
        } else {
            self.pending.push(b'\n');
        }
        self.pending.extend_from_slice(line);
        if self.pending.len() > self.pending_max {
            let (start, pending) = (self.pending_line, std::mem::take(&mut self.pending));
            return core.refuse(RejectCause::Malformed, Place::Line(start), || {
                format!("a quote opened here is still open at line {number}: `{}`", shown(&pending))
            });
        }
        if !quote_is_open(&self.pending, self.delimiter) {
            let pending = std::mem::take(&mut self.pending);
            self.quoted(core, &pending, self.pending_line, events);
        }
    }

    fn end(&mut self, core: &mut Core, _events: &mut Vec<Event>) {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            core.refuse(RejectCause::Malformed, Place::Line(self.pending_line), || {
                format!("a quote opened here is never closed: `{}`", shown(&pending))
            });
        }
    }

    fn format(&self) -> String {
        format!("csv (time in {})", self.time.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read_all, read_err};
    use super::super::{Format, ReadOptions};
    use super::*;
    use tidegate_engine::{EventTime, flag};

    fn rows(text: &str) -> (Vec<Event>, crate::source::ReadAccount, Vec<String>) {
        read_all(Format::Csv, text.as_bytes(), &ReadOptions::default())
    }

    #[test]
    fn rows_become_trades() {
        let (events, account, names) = rows(
            "ts,symbol,price,size,side\n1381132800464,SPY,167.41,100,B\n1381132800465,BAC, 13.94 ,0.5,sell\r\n",
        );
        assert_eq!(names, ["SPY", "BAC"]);
        assert_eq!((account.units, account.accepted), (2, 2));
        assert_eq!(events[0].ts_event, 1_381_132_800_464_000_000);
        assert_eq!((events[0].price(), events[0].size()), (167_410_000_000, 10_000_000_000));
        assert_eq!((events[0].flags, events[1].flags), (flag::BUY, flag::SELL));
        assert_eq!((events[1].key, events[1].size()), (1, 50_000_000));
    }

    #[test]
    fn quotes_follow_the_common_rules() {
        let text =
            "ts,symbol,price,size\n1,\"A,B\",\"1.5\",2\n2,\"x\"\"y\",1,2\n3,\"two\nlines\",1,2\n4,Z,1,2\n";
        let (events, account, names) = rows(text);
        assert_eq!(names, ["A,B", "x\"y", "Z"], "a line break in a name is a control character");
        assert_eq!((events.len(), account.units), (3, 4));
        assert_eq!(account.refused(RejectCause::BadName), 1);
        let (_, account, _) = rows("ts,symbol,price,size\n1,\"A,1,2\n2,B,1,2\n");
        assert_eq!((account.units, account.refused(RejectCause::Malformed)), (1, 1), "{account:?}");
    }

    #[test]
    fn bad_rows_are_counted_by_cause_and_the_rest_is_read() {
        let text = "ts,symbol,price,size\n\
            1,A,NaN,1\n1,A,inf,1\n1,A,1,-1\n1,A,1e40,1\n1,A,9e9,1e11\n1,A,1.00000000001,1\n-5,A,1,1\n9999999999,A,1,1\n1,,1,1\n1,A\n1,A,1,1\n";
        let (events, account, _) = rows(text);
        assert_eq!((events.len(), account.units, account.imbalance()), (1, 11, 0));
        assert_eq!(account.refused(RejectCause::BadNumber), 4, "{account:?}");
        assert_eq!(
            account.refused(RejectCause::OutOfRange),
            2,
            "one price, and one product of price and size"
        );
        assert_eq!(account.refused(RejectCause::BadTime), 2);
        assert_eq!(account.refused(RejectCause::BadName), 1);
        assert_eq!(account.refused(RejectCause::Malformed), 1);
        assert_eq!(account.examples.len(), 5);
        assert_eq!(account.examples[0].1, Place::Line(2));
    }

    #[test]
    fn the_file_name_is_the_symbol_when_no_column_is() {
        let (_, _, names) = rows("ts,price,size\n1,1,1\n");
        assert_eq!(names, ["MEMORY"]);
    }

    #[test]
    fn scaled_integers_follow_the_map() {
        let options =
            ReadOptions { map: "price=px@1e-4,size=n@1e-2".parse().unwrap(), ..ReadOptions::default() };
        let (events, account, _) =
            read_all(Format::Csv, b"ts,px,n\n1,1674100,250\n1,-1,1\n1,1.5,1\n", &options);
        assert_eq!((events[0].price(), events[0].size()), (167_410_000_000, 250_000_000));
        assert_eq!(events[1].price(), -100_000);
        assert_eq!(account.refused(RejectCause::BadNumber), 1);
    }

    #[test]
    fn filters_and_quota_are_counted() {
        let options = ReadOptions {
            from: Some(EventTime(2_000_000_000)),
            to: Some(EventTime(4_000_000_000)),
            ..ReadOptions::default()
        };
        let text = b"ts,symbol,price,size\n1,A,1,1\n2,A,1,1\n3,A,1,1\n4,A,1,1\n";
        let (events, account, _) = read_all(Format::Csv, text, &options);
        assert_eq!((events.len(), account.refused(RejectCause::Filtered), account.faults()), (2, 2, 0));

        let mut text = b"ts,symbol,price,size\n".to_vec();
        for n in 0..1_000_000 {
            text.extend_from_slice(format!("1,S{n},1,1\n").as_bytes());
        }
        let options = ReadOptions { names_max: 1000, ..ReadOptions::default() };
        let (events, account, names) = read_all(Format::Csv, &text, &options);
        assert_eq!((events.len(), names.len()), (1_000_000, 1001));
        assert_eq!((names[1000].as_str(), account.overflowed()), ("(overflow)", 999_000));
    }

    #[test]
    fn a_name_of_a_megabyte_is_refused() {
        let mut text = b"ts,symbol,price,size\n1,".to_vec();
        text.resize(text.len() + (1 << 20), b'x');
        text.extend_from_slice(b",1,1\n1,A,1,1\n");
        let (events, account, _) = read_all(Format::Csv, &text, &ReadOptions::default());
        assert_eq!((events.len(), account.refused(RejectCause::BadName)), (1, 1));
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        let columns = read_err(Format::Csv, b"a,b,c\n1,2,3\n", &ReadOptions::default());
        assert!(
            matches!(columns, ReadError::Columns { .. }) && columns.to_string().contains("a, b, c"),
            "{columns}"
        );
        let headless = read_err(Format::Csv, b"1,2,3\n1,2,3\n", &ReadOptions::default());
        assert!(headless.to_string().contains("header line"), "{headless}");
        let options = ReadOptions { strict: true, ..ReadOptions::default() };
        let strict = read_err(Format::Csv, b"ts,price,size\n1,1,1\n1,x,1\n1,1,1\n", &options);
        assert!(matches!(strict, ReadError::Damaged { place: Place::Line(3), .. }), "{strict}");
    }
}
