//! One key: where it is computed, what it costs, and where it can be read.

use crate::admit::Pass;
use crate::error::{ApiError, echo};
use crate::query::Query;
use crate::server::Shared;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use tidegate_engine::{name_hash, slot_of};
use tidegate_proto::access::{Symbols, Verb};
use tidegate_proto::hub::{Hub, KeySearch, KeyStats};

/// Names given for one that there is not.
const NEAR_MAX: usize = 8;
/// Names compared to find them.
const COMPARED_MAX: usize = 512;

/// The document.
pub(crate) async fn document(
    shared: &Arc<Shared>,
    pass: &Pass,
    query: Option<&str>,
) -> Result<Value, ApiError> {
    let query = Query::parse(query, &["key"])?;
    let key = query.need("key")?.to_owned();
    let book = shared.book();
    let may = |name: &str| pass.grant.allows(Verb::Subscribe, name, Symbols::Name(&key));
    let readable: Vec<(u16, String)> = book
        .open()
        .filter(|(_, stream)| may(&stream.meta.name))
        .map(|(at, stream)| (at, stream.meta.name.clone()))
        .collect();
    if readable.is_empty() {
        let message = format!("`{}` may not read `{}` in any stream", pass.grant.principal(), echo(&key));
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let whole = pass.sees_server();
    let name = key.clone();
    let found = shared
        .ask(move |hub, _| {
            let first = hub.keys(None, KeySearch::Prefix(&name), None, 1);
            if first.first().is_none_or(|first| *first.name != *name) {
                // Names say something too: whoever may read only some is told none.
                return Err(if whole { near(hub, &name) } else { Vec::new() });
            }
            let stats = |(number, stream)| Some((stream, hub.key_stats(number, &name)?));
            Ok(readable.into_iter().filter_map(stats).collect::<Vec<_>>())
        })
        .await?;
    let found = found.map_err(|near| ApiError::unknown_key(&key).allowed(near))?;
    let slot = slot_of(name_hash(key.as_bytes()));
    let shards = shared.sources.shards.stats().len().max(1);
    let (group, place, held) = crate::cluster::group_of(shared, slot);
    Ok(json!({
        "key": key,
        "slot": slot,
        "group": group,
        "shard": place.map(|place| shard_of(slot, shards, place, held)),
        "shards": shards,
        "cluster": if whole { crate::cluster::holders(shared, slot) } else { Value::Null },
        "events": found.iter().map(|(_, stats)| stats.events).max().filter(|events| *events > 0),
        "cost": cost(&found),
        "last": found.iter().map(|(_, stats)| stats.newest.ts).max().map(time),
        "streams": found.iter().map(|(stream, stats)| json!({
            "stream": stream,
            "records": stats.records,
            "kept": stats.kept,
            "events": (stats.all_events > 0).then_some(stats.events),
            "sequence": stats.newest.sequence,
            "last": time(stats.newest.ts),
        })).collect::<Vec<_>>(),
    }))
}

/// The shard of a slot, among those of all groups that are held, which stand one group behind the other.
fn shard_of(slot: u16, shards: usize, group: u16, groups: usize) -> usize {
    let each = (shards / groups.max(1)).max(1);
    usize::from(group) * each + usize::from(slot) % each
}

/// An event time as records have it.
fn time(ts: u64) -> Value {
    let time = Timestamp::from_nanosecond(ts.into()).ok();
    json!({"ts": ts.to_string(), "time": time.map(|time| time.to_string())})
}

/// What part of the work the key is, and its slot: what share of all keys' events, in the stream that has seen most of its own. Null
/// where no stream has bars.
fn cost(found: &[(String, KeyStats)]) -> Value {
    let most = found.iter().map(|(_, stats)| stats).max_by_key(|stats| stats.events);
    let Some(stats) = most.filter(|stats| stats.events > 0) else { return Value::Null };
    let share = |events: u64| events as f64 / stats.all_events.max(1) as f64;
    json!({"share": share(stats.events), "slot_share": share(stats.slot_events), "of_events": stats.all_events})
}

/// Names like one that there is not, the most similar first.
fn near(hub: &Hub, name: &str) -> Vec<String> {
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut look = |search| {
        let room = COMPARED_MAX.saturating_sub(names.len());
        names.extend(hub.keys(None, search, None, room).into_iter().map(|key| key.name));
    };
    look(KeySearch::Contains(name));
    // Wrong letters at the end are more usual than at the beginning; an empty beginning is that of every name.
    for (end, _) in name.char_indices().rev() {
        look(KeySearch::Prefix(&name[..end]));
    }
    let folded = name.to_lowercase();
    let distance = |other: &str| strsim::damerau_levenshtein(&folded, &other.to_lowercase());
    let close = |other: &str| distance(other) <= (name.chars().count() / 2).max(2);
    let contains = |other: &str| other.to_lowercase().contains(&folded);
    names.sort();
    names.dedup();
    names.retain(|other| close(other) || contains(other));
    names.sort_by_cached_key(|other| distance(other));
    names.iter().take(NEAR_MAX).map(|other| other.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_shard_is_one_of_its_groups() {
        assert_eq!([0, 294, 4_095].map(|slot| shard_of(slot, 3, 0, 1)), [0, 0, 0]);
        assert_eq!([1, 295, 4_094].map(|slot| shard_of(slot, 3, 0, 1)), [1, 1, 2]);
        assert_eq!(shard_of(294, 4, 0, 4), 0);
        assert_eq!([2_048, 2_049].map(|slot| shard_of(slot, 8, 2, 4)), [4, 5]);
    }
}
