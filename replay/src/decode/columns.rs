//! Which column is what: names given by `--map`, or guessed from what feeds commonly call them.

use std::str::FromStr;

/// Columns of trades by name, as `--map ts=…,symbol=…,price=…,size=…[,side=…]` gives them. What it leaves out is guessed.
///
/// `ts=date+time` joins two columns. An integer price or size may carry a power of ten: `price=px@1e-9`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnMap {
    /// Timestamp.
    pub ts: Option<String>,
    /// Symbol; without one the file name says it.
    pub symbol: Option<String>,
    /// Price.
    pub price: Option<String>,
    /// Size.
    pub size: Option<String>,
    /// Aggressor side.
    pub side: Option<String>,
    /// Power of ten that an integer price is in, -9 to 0.
    pub price_exponent: i8,
    /// Power of ten that an integer size is in, -8 to 0.
    pub size_exponent: i8,
}

/// Why a `--map` text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` in the column map: {reason}; write e.g. `ts=time,symbol=ticker,price=last,size=qty`")]
pub struct ColumnMapError {
    /// The offending part.
    pub part: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for ColumnMap {
    type Err = ColumnMapError;

    fn from_str(text: &str) -> Result<Self, ColumnMapError> {
        let mut map = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let fail = |reason| ColumnMapError { part: part.to_owned(), reason };
            let (role, column) = part.split_once('=').ok_or_else(|| fail("expected `role=column`"))?;
            let (role, column) = (role.trim(), column.trim());
            let scaled = matches!(role, "price" | "size");
            let (column, exponent) = match column.rsplit_once("@1e") {
                Some((column, exponent)) if scaled => {
                    let limit = if role == "price" { -9 } else { -8 };
                    let exponent = exponent
                        .parse::<i8>()
                        .ok()
                        .filter(|e| (limit..=0).contains(e))
                        .ok_or_else(|| fail("the power of ten must be 1e-9 (size: 1e-8) to 1e0"))?;
                    (column, exponent)
                }
                _ => (column, 0),
            };
            if column.is_empty() {
                return Err(fail("the column name is empty"));
            }
            let slot = match role {
                "ts" => &mut map.ts,
                "symbol" => &mut map.symbol,
                "price" => &mut map.price,
                "size" => &mut map.size,
                "side" => &mut map.side,
                _ => return Err(fail("the role must be ts, symbol, price, size or side")),
            };
            if slot.replace(column.to_owned()).is_some() {
                return Err(fail("the role is given twice"));
            }
            match role {
                "price" => map.price_exponent = exponent,
                "size" => map.size_exponent = exponent,
                _ => {}
            }
        }
        Ok(map)
    }
}

/// Where the timestamp is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TsColumn {
    One(usize),
    /// A date column and a time column, joined with a blank.
    DateAndTime(usize, usize),
}

/// What the side column says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SideMeaning {
    /// The aggressor: b, buy, s, sell and the like.
    Aggressor,
    /// True when the buyer was the maker, that is, the seller took liquidity.
    BuyerIsMaker,
}

/// Columns by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) ts: TsColumn,
    pub(super) symbol: Option<usize>,
    pub(super) price: usize,
    pub(super) size: usize,
    pub(super) side: Option<(usize, SideMeaning)>,
}

const TS: &[&str] = &[
    "ts_event",
    "ts_ns",
    "ts",
    "timestamp_ns",
    "timestamp",
    "event_time",
    "trade_time",
    "transact_time",
    "datetime",
    "date_time",
    "time_ns",
    "time_exchange",
    "exchange_time",
    "exchange_timestamp",
    "time",
    "ts_us",
    "ts_ms",
    "ts_recv",
    "local_timestamp",
    "t",
    "date",
];
const SYMBOL: &[&str] = &[
    "symbol",
    "sym",
    "ticker",
    "instrument",
    "raw_symbol",
    "pair",
    "product_id",
    "product",
    "s",
    "security",
];
const PRICE: &[&str] = &["price", "px", "trade_price", "last_price", "p", "last", "rate"];
const SIZE: &[&str] = &[
    "size",
    "qty",
    "quantity",
    "volume",
    "amount",
    "vol",
    "sz",
    "trade_size",
    "last_size",
    "trade_qty",
    "shares",
    "q",
    "v",
];
const SIDE: &[&str] = &["side", "aggressor", "aggressor_side", "taker_side", "trade_side"];
const BUYER_IS_MAKER: &[&str] = &["is_buyer_maker", "isbuyermaker", "buyer_maker", "m"];

/// A header in the form names are compared in.
fn normal(header: &str) -> String {
    header
        .trim_start_matches('\u{feff}')
        .trim()
        .trim_matches('"')
        .chars()
        .map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect()
}

/// Finds the columns, or says what is missing, what there is and how to name it.
pub(super) fn resolve(headers: &[String], map: &ColumnMap) -> Result<Columns, String> {
    let normals: Vec<String> = headers.iter().map(|header| normal(header)).collect();
    let guess =
        |names: &[&str]| names.iter().find_map(|name| normals.iter().position(|normal| normal == name));
    let exact = |name: &str| {
        headers
            .iter()
            .position(|header| header.trim_start_matches('\u{feff}').trim().trim_matches('"') == name)
            .or_else(|| normals.iter().position(|other| *other == normal(name)))
            .ok_or_else(|| explain(&format!("there is no column `{name}`"), headers))
    };
    let mapped = |given: &Option<String>, names: &[&str]| match given {
        Some(name) => exact(name).map(Some),
        None => Ok(guess(names)),
    };
    let missing = |role: &str| explain(&format!("cannot tell which column is the {role}"), headers);
    let ts = match &map.ts {
        Some(name) => match exact(name) {
            Ok(at) => TsColumn::One(at),
            Err(error) => match name.split_once('+') {
                Some((date, time)) => TsColumn::DateAndTime(exact(date)?, exact(time)?),
                None => return Err(error),
            },
        },
        None => {
            let at = |name| normals.iter().position(|normal| normal == name);
            match (guess(TS).ok_or_else(|| missing("time"))?, at("date"), at("time")) {
                (found, Some(date), Some(time)) if found == time || found == date => {
                    TsColumn::DateAndTime(date, time)
                }
                (found, ..) => TsColumn::One(found),
            }
        }
    };
    let price = mapped(&map.price, PRICE)?.ok_or_else(|| missing("price"))?;
    let size = mapped(&map.size, SIZE)?.ok_or_else(|| missing("size"))?;
    let symbol = mapped(&map.symbol, SYMBOL)?;
    let side = match &map.side {
        Some(name) => {
            let at = exact(name)?;
            let maker = BUYER_IS_MAKER.contains(&normals[at].as_str());
            Some((at, if maker { SideMeaning::BuyerIsMaker } else { SideMeaning::Aggressor }))
        }
        None => guess(SIDE)
            .map(|at| (at, SideMeaning::Aggressor))
            .or_else(|| guess(BUYER_IS_MAKER).map(|at| (at, SideMeaning::BuyerIsMaker))),
    };
    Ok(Columns { ts, symbol, price, size, side })
}

fn explain(problem: &str, headers: &[String]) -> String {
    const SHOWN_MAX: usize = 40;
    let mut list: Vec<String> =
        headers.iter().take(SHOWN_MAX).map(|header| super::text::shown(header.as_bytes())).collect();
    if headers.len() > SHOWN_MAX {
        list.push(format!("and {} more", headers.len() - SHOWN_MAX));
    }
    let pick = |at: usize| list.get(at).map_or("COLUMN", String::as_str).to_owned();
    format!(
        "{problem}. The columns are: {}. Name them with e.g. --map 'ts={},price={},size={}' (symbol= and side= if there are any)",
        list.join(", "),
        pick(0),
        pick(1),
        pick(2)
    )
}

/// The aggressor's flag for a side text; unknown texts say nothing.
#[inline]
pub(super) fn side_flag(text: &[u8], meaning: SideMeaning) -> u8 {
    use tidegate_engine::flag;
    match meaning {
        SideMeaning::Aggressor => match text.first() {
            Some(b'b' | b'B') => flag::BUY,
            Some(b's' | b'S' | b'a' | b'A') => flag::SELL,
            _ => 0,
        },
        SideMeaning::BuyerIsMaker => match text.first() {
            Some(b't' | b'T' | b'1') => flag::SELL,
            Some(b'f' | b'F' | b'0') => flag::BUY,
            _ => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(header: &str, map: &str) -> Result<Columns, String> {
        let headers: Vec<String> = header.split(',').map(str::to_owned).collect();
        resolve(&headers, &map.parse().unwrap())
    }

    #[test]
    fn common_headers_are_understood() {
        let found = columns("Timestamp,Ticker,Last Price,Qty,Side", "").unwrap();
        assert_eq!((found.ts, found.symbol, found.price, found.size), (TsColumn::One(0), Some(1), 2, 3));
        let found = columns("id,price,qty,quote_qty,time,is_buyer_maker", "").unwrap();
        assert_eq!((found.ts, found.price, found.size), (TsColumn::One(4), 1, 2));
        assert_eq!(found.side, Some((5, SideMeaning::BuyerIsMaker)));
        assert_eq!(columns("Date,Time,p,v", "").unwrap().ts, TsColumn::DateAndTime(0, 1));
        assert_eq!(columns("\u{feff}ts,p,v", "").unwrap().ts, TsColumn::One(0));
    }

    #[test]
    fn a_map_overrides_and_errors_teach() {
        let found = columns("a,b,c,d", "ts=d, price=b,size=c@1e-8").unwrap();
        assert_eq!((found.ts, found.price, found.size), (TsColumn::One(3), 1, 2));
        let error = columns("a,b,c,d", "").unwrap_err();
        assert!(error.contains("a, b, c, d") && error.contains("--map 'ts=a"), "{error}");
        assert!(columns("a,b", "ts=x").unwrap_err().contains("no column `x`"));
        for bad in ["ts", "ts=", "when=x", "ts=a,ts=b", "price=p@1e-10", "size=s@1e9"] {
            assert!(bad.parse::<ColumnMap>().is_err(), "{bad}");
        }
    }
}
