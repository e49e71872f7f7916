//! `tidegate explain`: one key of a running node: where it is computed, what it costs, where it can be read.

use crate::cli::ExplainArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{Table, Tone, Ui, bytes, clean, thousands};
use crate::top::client::{AskError, Node, escape};
use serde_json::Value;
use std::time::Duration;

/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(10);
/// What is not known.
const UNKNOWN: &str = "-";

pub(crate) fn run(args: &ExplainArgs, ui: &Ui) -> Outcome {
    let mut node = Node::new(&args.url, WAIT).map_err(|error| Failure::new(Exit::Usage, error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))?;
    let asked = runtime.block_on(node.ask(&format!("/v1/explain?key={}", escape(&args.key))));
    let found = asked.map_err(|error| failure(error, &args.key))?;
    if args.json {
        ui.print_json(&found);
    } else {
        ui.print(&render(&found, ui));
    }
    Ok(Exit::Ok)
}

fn failure(error: AskError, key: &str) -> Failure {
    let AskError::Refused { code, allowed, .. } = &error else { return Failure::new(Exit::Input, error) };
    if code == "not_found" {
        return Failure::new(Exit::Input, anyhow::anyhow!("{error}: it is of a version without `explain`"));
    }
    if code != "unknown_key" {
        return Failure::new(Exit::Input, error);
    }
    let near: Vec<String> = allowed.iter().map(|name| format!("`{}`", clean(name))).collect();
    let near = match near.as_slice() {
        [] => "; tidegate top shows those there are".to_owned(),
        near => format!(", but {}", near.join(", ")),
    };
    Failure::usage(format!("there is no key `{}`{near}", clean(key)))
}

fn number(value: &Value) -> String {
    value.as_u64().map_or(UNKNOWN.to_owned(), thousands)
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or(UNKNOWN.to_owned(), |share| format!("{:.2} %", share * 100.0))
}

fn node_name(value: &Value) -> String {
    value.as_u64().map_or("none".to_owned(), |node| format!("node {node}"))
}

/// An event time for people.
fn when(value: &Value) -> String {
    value["time"].as_str().map_or(UNKNOWN.to_owned(), clean)
}

/// How far a follower is.
fn follows(follower: &Value) -> String {
    let state = match (follower["connected"].as_bool(), follower["in_sync"].as_bool()) {
        (Some(false), _) => "does not answer",
        (_, Some(true)) => "in sync",
        _ => "not in sync",
    };
    let lag = &follower["lag"];
    let behind = match (lag["entries"].as_u64(), lag["bytes"].as_u64()) {
        (Some(0), _) => ", has everything".to_owned(),
        (Some(entries), Some(lacks)) => format!(", {} entries ({}) behind", thousands(entries), bytes(lacks)),
        _ => String::new(),
    };
    format!("{} ({state}{behind})", node_name(&follower["node"]))
}

/// A node that does not hold it, and where it has the results from.
fn relayed(relay: &Value) -> String {
    let node = node_name(&relay["node"]);
    match (relay["from"].as_u64(), relay["behind_ms"].as_u64()) {
        (Some(from), Some(behind)) => format!("{node} (from node {from}, {behind} ms of event time behind)"),
        (Some(from), None) => format!("{node} (from node {from})"),
        (None, _) => format!("{node} (finds nobody who holds it)"),
    }
}

fn render(found: &Value, ui: &Ui) -> String {
    let text = |value: &Value| value.as_str().map_or(UNKNOWN.to_owned(), clean);
    let mut facts = Table::facts();
    facts.fact("key", text(&found["key"]));
    let shard = match &found["shard"] {
        Value::Null => "no shard of this node".to_owned(),
        shard => format!("shard {} of {}", number(shard), number(&found["shards"])),
    };
    facts.fact(
        "place",
        format!("slot {}, group {}, {shard}", number(&found["slot"]), number(&found["group"])),
    );
    let cluster = &found["cluster"];
    if cluster.is_null() {
        facts.fact("held by", "this server alone");
    } else {
        facts.fact(
            "leader",
            format!("{}, epoch {}", node_name(&cluster["leader"]), number(&cluster["epoch"])),
        );
        let followers: Vec<String> =
            cluster["followers"].as_array().into_iter().flatten().map(follows).collect();
        facts.fact("followers", if followers.is_empty() { "none".to_owned() } else { followers.join(", ") });
        let relays: Vec<String> = cluster["relays"].as_array().into_iter().flatten().map(relayed).collect();
        if !relays.is_empty() {
            facts.fact("relayed by", relays.join(", "));
        }
        let (end, committed) = (number(&cluster["end"]), number(&cluster["committed"]));
        facts.fact("offsets", format!("committed {committed} of {end}, at {}", node_name(&cluster["node"])));
    }
    let cost = &found["cost"];
    if cost.is_null() {
        facts.fact("events", "not counted: no stream of bars has it");
    } else {
        facts.fact("events", format!("{} of {}", number(&found["events"]), number(&cost["of_events"])));
        let (share, slot) = (percent(&cost["share"]), percent(&cost["slot_share"]));
        facts.fact("cost", format!("{share} of all events, its slot {slot}"));
    }
    facts.fact("last", when(&found["last"]));
    let mut table = Table::new(&["stream", ">records", ">kept", ">events", ">number", "last"]);
    for stream in found["streams"].as_array().into_iter().flatten() {
        table.cells(vec![
            (Tone::Plain, text(&stream["stream"])),
            (Tone::Plain, number(&stream["records"])),
            (Tone::Plain, number(&stream["kept"])),
            (Tone::Plain, number(&stream["events"])),
            (Tone::Plain, number(&stream["sequence"])),
            (Tone::Plain, when(&stream["last"])),
        ]);
    }
    format!("{}\n{}", facts.render(ui, 0), table.render(ui, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn followers_are_told_in_words() {
        let follower = |connected: bool, in_sync: bool, lag: Value| {
            follows(&json!({"node": 3, "connected": connected, "in_sync": in_sync, "lag": lag}))
        };
        assert_eq!(
            follower(true, true, json!({"entries": 0, "bytes": 0})),
            "node 3 (in sync, has everything)"
        );
        let behind = follower(true, false, json!({"entries": 12_400, "bytes": 4_096}));
        assert!(behind.starts_with("node 3 (not in sync, 12,400 entries (4.0"), "{behind}");
        assert_eq!(follower(false, false, Value::Null), "node 3 (does not answer)");
    }

    #[test]
    fn what_the_node_says_of_a_key_that_is_not_there_becomes_a_usage_error() {
        let refused = |code: &str, allowed: &[&str]| AskError::Refused {
            authority: "a:1".into(),
            status: 404,
            code: code.into(),
            message: "no".into(),
            allowed: allowed.iter().map(|&name| name.to_owned()).collect(),
        };
        let unknown = failure(refused("unknown_key", &["BTCUSD", "BTC\u{1b}USD"]), "BTCUST");
        assert_eq!(unknown.exit, Exit::Usage);
        let words = unknown.error.to_string();
        assert!(
            words.starts_with("there is no key `BTCUST`, but `BTCUSD`") && !words.contains('\u{1b}'),
            "{words}"
        );
        assert_eq!(failure(refused("forbidden", &[]), "x").exit, Exit::Input);
    }
}
