//! Parameters of a request, each known, each once, each in its range.

use crate::error::{ApiError, echo};
use std::borrow::Cow;

/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 8_192;

#[derive(Debug)]
pub(crate) struct Query<'q> {
    pairs: Vec<(Cow<'q, str>, Cow<'q, str>)>,
}

impl<'q> Query<'q> {
    pub(crate) fn parse(text: Option<&'q str>, allowed: &[&str]) -> Result<Self, ApiError> {
        let text = text.unwrap_or_default();
        if text.len() > QUERY_BYTES_MAX {
            let message = format!("the query has {} bytes, allowed are {QUERY_BYTES_MAX}", text.len());
            return Err(ApiError::bad("query_too_long", message));
        }
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if !allowed.contains(&&*name) {
                let message = match allowed {
                    [] => format!("there is no parameter `{}`: none is taken here", echo(&name)),
                    _ => format!("there is no parameter `{}`", echo(&name)),
                };
                return Err(ApiError::bad("unknown_parameter", message).allowed(allowed));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(ApiError::bad("bad_parameter", format!("`{name}` is given twice")));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    pub(crate) fn need(&self, name: &'static str) -> Result<&str, ApiError> {
        self.text(name)
            .ok_or_else(|| ApiError::bad("missing_parameter", format!("`{name}` is missing")).allowed([name]))
    }

    pub(crate) fn count(
        &self,
        name: &'static str,
        default: usize,
        min: usize,
        max: usize,
    ) -> Result<usize, ApiError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().ok().filter(|count| (min..=max).contains(count)).ok_or_else(|| {
            let message = format!("`{name}` is `{}`, allowed are {min} to {max}", echo(text));
            ApiError::bad("out_of_range", message).allowed([format!("{min} to {max}")])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_in_range() {
        let code = |text: &str| {
            let query = Query::parse(Some(text), &["stream", "limit"])?;
            query.need("stream")?;
            query.count("limit", 5, 1, 10)
        };
        assert_eq!(code("stream=a").unwrap(), 5);
        assert_eq!(code("stream=%2B&limit=10").unwrap(), 10);
        for (text, want) in [
            ("", "missing_parameter"),
            ("stream=a&stream=b", "bad_parameter"),
            ("stream=a&limt=3", "unknown_parameter"),
            ("stream=a&limit=", "out_of_range"),
            ("stream=a&limit=0", "out_of_range"),
            ("stream=a&limit=11", "out_of_range"),
            ("stream=a&limit=-1", "out_of_range"),
            ("stream=a&limit=99999999999999999999999", "out_of_range"),
            (&format!("stream={}", "x".repeat(9_000)), "query_too_long"),
        ] {
            assert_eq!(code(text).unwrap_err().code, want, "{text}");
        }
    }
}
