//! What is known of a node: its last answers, the ones before for rates, and what of it deserves attention. What the node
//! does not know stays unknown.

use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// Points of the sparklines.
const POINTS: usize = 600;
/// Keys looked at.
pub(super) const KEYS_MAX: usize = 200;

/// News of the node.
#[derive(Debug)]
pub(super) enum News {
    Status(Value),
    Streams(Vec<String>),
    Keys(Keys),
    /// It does not answer, for this reason.
    Silent(String),
}

/// Keys and their newest record in a stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Keys {
    pub(super) stream: String,
    pub(super) search: String,
    /// Names with their record, if they have one.
    pub(super) rows: Vec<(String, Option<Value>)>,
    /// Keys of the node.
    pub(super) total: Option<u64>,
    /// Whether there are more than are shown.
    pub(super) more: bool,
}

/// A status and when it came.
#[derive(Debug, Clone)]
struct Seen {
    at: Duration,
    status: Value,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) url: String,
    now: Option<Seen>,
    before: Option<Seen>,
    /// Why the node is silent, if it is, and since when.
    pub(super) silent: Option<(String, Duration)>,
    pub(super) streams: Vec<String>,
    pub(super) keys: Option<Keys>,
    /// Events and results a second, oldest first.
    pub(super) events: VecDeque<u64>,
    pub(super) results: VecDeque<u64>,
    /// Answers so far.
    pub(super) answers: u64,
}

impl Model {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }

    /// Takes news that came `at` after the start.
    pub(super) fn apply(&mut self, news: News, at: Duration) {
        match news {
            News::Status(status) => {
                self.silent = None;
                self.answers += 1;
                let was = self.now.take();
                // A node that was started anew counts from 0: nothing of before compares.
                let same = |was: &Seen| number(&was.status["uptime_s"]) <= number(&status["uptime_s"]);
                self.before = was.filter(same);
                for (points, flow) in [(&mut self.events, "events"), (&mut self.results, "results")] {
                    if let Some(rate) = status[flow]["rate"].as_f64() {
                        points.push_back(rate.max(0.0) as u64);
                    }
                    while points.len() > POINTS {
                        points.pop_front();
                    }
                }
                self.now = Some(Seen { at, status });
            }
            News::Streams(streams) => self.streams = streams,
            News::Keys(keys) => self.keys = Some(keys),
            News::Silent(reason) => {
                let since = self.silent.take().map_or(at, |(_, since)| since);
                self.silent = Some((reason, since));
            }
        }
    }

    /// The last status; null before there is one.
    pub(super) fn status(&self) -> &Value {
        self.now.as_ref().map_or(&Value::Null, |seen| &seen.status)
    }

    /// The last but one.
    fn earlier(&self) -> &Value {
        self.before.as_ref().map_or(&Value::Null, |seen| &seen.status)
    }

    /// Seconds between the last two answers, if there were two.
    fn seconds(&self) -> Option<f64> {
        let seconds = self.now.as_ref()?.at.checked_sub(self.before.as_ref()?.at)?.as_secs_f64();
        (seconds > 0.05).then_some(seconds)
    }

    /// Entries of a list of the status.
    pub(super) fn list(&self, name: &str) -> &[Value] {
        self.status()[name].as_array().map_or(&[], Vec::as_slice)
    }

    /// How fast `count` of an entry of a list goes up, found again by its `id`.
    pub(super) fn rate(&self, list: &str, id: &str, entry: &Value, count: &str) -> Option<f64> {
        let before = self.earlier()[list].as_array()?.iter().find(|before| before[id] == entry[id])?;
        let (now, before) = (number(&entry[count])?, number(&before[count])?);
        Some(now.saturating_sub(before) as f64 / self.seconds()?)
    }

    /// What deserves attention, worst first.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut say = |bad: bool, text: String| warnings.push(Warning { bad, text });
        if let Some((reason, _)) = &self.silent {
            say(true, reason.clone());
        }
        for shard in self.list("shards") {
            let name = text(&shard["shard"]);
            if let Some(phase) =
                shard["phase"].as_str().filter(|phase| !matches!(*phase, "running" | "starting"))
            {
                say(phase != "ended", format!("shard {name} is {phase}"));
            }
            if let Some(panics @ 1..) = number(&shard["panics"]) {
                say(
                    true,
                    format!("shard {name} failed {panics} times, restarted {}", text(&shard["restarts"])),
                );
            }
            if let (Some(depth), Some(capacity @ 1..)) =
                (number(&shard["ring_depth"]), number(&shard["ring_capacity"]))
                && depth.saturating_mul(5) > capacity.saturating_mul(4)
            {
                say(
                    false,
                    format!("the ring of shard {name} is {} % full", depth.saturating_mul(100) / capacity),
                );
            }
            self.standing(shard, &name, &mut say);
        }
        for stage in self.list("ledger") {
            if let Some(imbalance) = stage["imbalance"].as_i64().filter(|imbalance| *imbalance != 0) {
                say(true, format!("the ledger of {} is off by {imbalance}", text(&stage["stage"])));
            }
        }
        for feed in self.list("feeds") {
            let name = text(&feed["source"]);
            if feed["connected"] == false {
                say(false, format!("feed {name} is away"));
            }
            for (count, what) in [(&feed["gaps"], "lost"), (&feed["rejected"]["refused"], "refused")] {
                if let Some(count @ 1..) = number(count) {
                    say(false, format!("feed {name}: {} events {what}", crate::render::thousands(count)));
                }
            }
        }
        for reader in self.list("subscribers") {
            if self.rate("subscribers", "id", reader, "dropped").is_some_and(|rate| rate > 0.0) {
                say(false, format!("subscriber {} is losing records", text(&reader["id"])));
            }
        }
        self.journal_warnings(&mut say);
        self.alert_warnings(&mut say);
        warnings.sort_by_key(|warning| !warning.bad);
        warnings
    }

    /// Alerts that are open, and what keeps them from being told.
    fn alert_warnings(&self, say: &mut impl FnMut(bool, String)) {
        let alerts = &self.status()["alerts"];
        let open: Vec<(&str, u64)> = ["high", "medium", "low"]
            .into_iter()
            .filter_map(|severity| Some((severity, number(&alerts["open"][severity]).filter(|n| *n > 0)?)))
            .collect();
        if let Some((worst, _)) = open.first() {
            let parts: Vec<String> = open
                .iter()
                .map(|(severity, count)| format!("{} {severity}", crate::render::thousands(*count)))
                .collect();
            say(*worst == "high", format!("alerts: {} open", parts.join(", ")));
        }
        if let Some(problem) = alerts["problem"].as_str() {
            say(true, format!("alerts are not written down: {}", crate::render::clean(problem)));
        }
        if let Some(dropped) = alerts["dropped"].as_object() {
            for (what, count) in dropped {
                if let Some(count @ 1..) = number(count) {
                    say(false, format!("alerts: {} {what} dropped", crate::render::thousands(count)));
                }
            }
        }
    }

    /// What keeps the journal from its promises.
    fn journal_warnings(&self, say: &mut impl FnMut(bool, String)) {
        let journal = &self.status()["journal"];
        if let Some(health) = journal["health"].as_str().filter(|health| *health != "working") {
            say(true, format!("the journal is {health}: {}", text(&journal["reason"])));
        }
        if let Some(problem) = journal["snapshot"]["problem"].as_str() {
            say(false, format!("no snapshot of late: {}", crate::render::clean(problem)));
        }
    }

    /// A watermark that does not move although events come.
    fn standing(&self, shard: &Value, name: &str, say: &mut impl FnMut(bool, String)) {
        let find = |entry: &&Value| entry["shard"] == shard["shard"];
        let Some(before) = self.earlier()["shards"].as_array().and_then(|shards| shards.iter().find(find))
        else {
            return;
        };
        let moved = shard["watermark"] != before["watermark"];
        let events = number(&shard["events"]) > number(&before["events"]);
        if !moved && events && shard["watermark"].is_string() {
            say(false, format!("the watermark of shard {name} stands still"));
        }
    }
}

/// Something that deserves attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Warning {
    pub(super) bad: bool,
    pub(super) text: String,
}

/// A count.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64()
}

/// Any value as people read it; what is not known is `–`.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => UNKNOWN.to_owned(),
        Value::String(text) => crate::render::clean(text),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => match number.as_u64() {
            Some(count) => crate::render::thousands(count),
            None => number.to_string(),
        },
        Value::Object(_) => value.to_string(),
    }
}

/// How what is not known is shown.
pub(super) const UNKNOWN: &str = "–";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(model: &Model) -> Vec<String> {
        model
            .warnings()
            .into_iter()
            .map(|warning| format!("{}{}", if warning.bad { "!" } else { "" }, warning.text))
            .collect()
    }

    #[test]
    fn what_deserves_attention_is_named_worst_first() {
        let mut model = Model::new("x");
        let status = |dropped: u64, events: u64| {
            json!({
                "uptime_s": 5,
                "shards": [
                    {"shard": 0, "phase": "running", "panics": 0, "restarts": 0, "ring_depth": 90, "ring_capacity": 100, "watermark": "5", "events": events},
                    {"shard": 1, "phase": "quarantined", "panics": 2, "restarts": 1, "ring_depth": null, "ring_capacity": null, "watermark": null},
                ],
                "ledger": [{"stage": "bars.1s", "imbalance": 0}, {"stage": "bars.1m", "imbalance": -3}],
                "feeds": [{"source": "a", "connected": false, "gaps": 7_000, "rejected": {"refused": 0}}],
                "subscribers": [{"id": "9", "dropped": dropped}],
                "alerts": {"open": {"high": 1, "medium": 0, "low": 1_200}, "dropped": {"datagrams": 3, "sends": 0}, "problem": "no room"},
                "journal": {"health": "full", "reason": "the disk is full", "snapshot": {"problem": "it stalls"}},
            })
        };
        model.apply(News::Status(status(10, 5)), Duration::from_secs(1));
        assert!(
            !texts(&model).contains(&"subscriber 9 is losing records".to_owned()),
            "one answer is no rate"
        );
        model.apply(News::Status(status(11, 6)), Duration::from_secs(2));
        assert_eq!(
            texts(&model),
            [
                "!shard 1 is quarantined",
                "!shard 1 failed 2 times, restarted 1",
                "!the ledger of bars.1m is off by -3",
                "!the journal is full: the disk is full",
                "!alerts: 1 high, 1,200 low open",
                "!alerts are not written down: no room",
                "the ring of shard 0 is 90 % full",
                "the watermark of shard 0 stands still",
                "feed a is away",
                "feed a: 7,000 events lost",
                "subscriber 9 is losing records",
                "no snapshot of late: it stalls",
                "alerts: 3 datagrams dropped",
            ]
        );
        // Nothing is known, so nothing is wrong.
        let mut model = Model::new("x");
        model
            .apply(News::Status(json!({"shards": null, "feeds": [{}], "subscribers": [{}]})), Duration::ZERO);
        assert_eq!(texts(&model), Vec::<String>::new());
        model.apply(News::Silent("no answer".into()), Duration::from_secs(3));
        model.apply(News::Silent("still no answer".into()), Duration::from_secs(4));
        assert_eq!(model.silent, Some(("still no answer".into(), Duration::from_secs(3))));
        assert_eq!(texts(&model), ["!still no answer"]);
    }

    #[test]
    fn rates_need_two_answers_of_one_start() {
        let mut model = Model::new("x");
        let status = |uptime: u64, accepted: u64| json!({"uptime_s": uptime, "feeds": [{"source": "a", "accepted": accepted}]});
        let rate = |model: &Model| model.rate("feeds", "source", &model.list("feeds")[0], "accepted");
        model.apply(News::Status(status(10, 100)), Duration::from_secs(1));
        assert_eq!(rate(&model), None);
        model.apply(News::Status(status(12, 300)), Duration::from_secs(3));
        assert_eq!(rate(&model), Some(100.0));
        model.apply(News::Status(status(1, 50)), Duration::from_secs(4));
        assert_eq!(rate(&model), None, "it was started anew");
    }
}
