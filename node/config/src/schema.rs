//! The JSON Schema of a configuration, for editors: made from the same declarations as everything else.

use crate::sections::Config;
use crate::units::{show_bytes, show_span};
use crate::value::{Key, Kind, SectionInfo};
use serde_json::{Map, Value, json};

/// The schema, draft 2020-12. What needs more than one value to tell (see [`crate::read()`]) is not in it.
#[must_use]
pub fn schema() -> Value {
    let sections = Config::sections();
    let outer = sections.iter().filter(|section| !section.name.contains('.'));
    let properties: Map<String, Value> =
        outer.map(|section| (section.name.to_owned(), of_section(section, &sections))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tidegate.toml",
        "description": "Configuration of a Tidegate server.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn of_section(section: &SectionInfo, all: &[SectionInfo]) -> Value {
    let mut properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let prefix = format!("{}.", section.name);
    for inner in all {
        if let Some(name) = inner.name.strip_prefix(&prefix) {
            properties.insert(name.to_owned(), of_section(inner, all));
        }
    }
    let mut table = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if section.repeats {
        json!({ "description": section.about, "type": "array", "items": table })
    } else {
        table["description"] = section.about.clone().into();
        table
    }
}

fn of_key(key: &Key) -> Value {
    let mut schema = of_kind(&key.kind);
    schema["description"] = format!("{} Allowed: {}.", key.about, key.kind).into();
    if let Some(default) = key.default.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        schema["default"] = default;
    }
    schema
}

/// What an editor can check while somebody types; amounts with units only by their form.
fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::Count { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Bytes { min, max } => {
            json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$", "examples": [show_bytes(*min), show_bytes(*max)] })
        }
        Kind::Span { min, max } => json!({
            "type": "string",
            "pattern": r"^(0|[0-9]{1,18}(\.[0-9]{0,9})?(ns|us|ms|s|m|h|d))$",
            "examples": [show_span(*min), show_span(*max)],
        }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Address => json!({ "type": "string", "pattern": r":[0-9]{1,5}$" }),
        Kind::Text(chars_max, example) => {
            json!({ "type": "string", "minLength": 1, "maxLength": chars_max, "examples": [example] })
        }
        Kind::Path => json!({ "type": "string", "minLength": 1, "maxLength": 4_096 }),
        Kind::Bars => {
            json!({ "type": "string", "examples": ["1s", "1000t", "session:30s", "sliding:1m/10s", "1m@1s"] })
        }
        Kind::Indicator => {
            json!({ "type": "string", "pattern": "^[a-z]+:", "examples": ["rsi:14", "macd:12:26:9"] })
        }
        Kind::Anomaly => {
            json!({ "type": "string", "pattern": "^(return|range|volume|trades)(:[0-9.]+)?$", "examples": ["volume", "trades:2"] })
        }
        Kind::Width => json!({ "type": "string", "pattern": "^[0-9]+[a-z]+$", "examples": ["10s", "1m"] }),
        Kind::Name => {
            json!({ "type": "string", "pattern": "^(?![0-9]+$)[a-z0-9-]{1,32}$", "examples": ["rsi"] })
        }
        Kind::Sweep => {
            json!({ "type": "string", "pattern": "^(ema|rsi|atr|bb|macd):", "examples": ["rsi:2..30", "ema:5..200/5"] })
        }
        Kind::Horizon => {
            json!({ "type": "string", "pattern": "^[0-9.]+[a-z]+$", "examples": ["390b", "6.5h"] })
        }
        Kind::Tail => {
            json!({ "type": "string", "pattern": "^(normal|t:[0-9]+)$", "examples": ["normal", "t:5"] })
        }
        Kind::Level => json!({ "type": "number", "minimum": 0.5, "exclusiveMaximum": 1.0 }),
        Kind::Share => json!({ "type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0 }),
        Kind::Off(kind) => json!({ "anyOf": [{ "const": "off" }, of_kind(kind)] }),
        Kind::List(kind, max) => json!({ "type": "array", "maxItems": max, "items": of_kind(kind) }),
    }
}
