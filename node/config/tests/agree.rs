//! Reader, schema, templates and explanations say the same, because they come from the same declarations.

use serde_json::{Value, json};
use tidegate_config::{Change, Config, TEMPLATES, changes, read, schema};

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema()).expect("the schema is a schema")
}

/// A TOML text as JSON, as far as configurations go.
fn to_json(text: &str) -> Value {
    fn value(node: &toml::de::DeValue<'_>) -> Value {
        use toml::de::DeValue;
        match node {
            DeValue::String(text) => json!(text),
            DeValue::Integer(number) => json!(i64::from_str_radix(number.as_str(), number.radix()).unwrap()),
            DeValue::Float(number) => json!(number.as_str().parse::<f64>().unwrap()),
            DeValue::Boolean(value) => json!(value),
            DeValue::Datetime(time) => json!(time.to_string()),
            DeValue::Array(items) => items.iter().map(|item| value(item.get_ref())).collect(),
            DeValue::Table(table) => {
                table.iter().map(|(key, item)| (key.get_ref().to_string(), value(item.get_ref()))).collect()
            }
        }
    }
    let table = toml::de::DeTable::parse(text).expect("TOML");
    value(&toml::de::DeValue::Table(table.into_inner()))
}

#[test]
fn templates_pass_the_reader_and_the_schema() {
    let validator = validator();
    for template in TEMPLATES {
        let text = template.text();
        if let Err(problems) = read(text.as_bytes()) {
            panic!("{}", problems.render(template.name, false));
        }
        let errors: Vec<String> =
            validator.iter_errors(&to_json(&text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", template.name);
    }
}

#[test]
fn the_full_template_is_the_defaults_and_names_every_key() {
    let text = tidegate_config::Template::of("full").unwrap().text();
    assert_eq!(read(text.as_bytes()).unwrap().config, Config::default());
    for section in Config::sections() {
        for key in section.keys {
            let here = format!("{} =", key.name);
            assert!(text.contains(&here), "{} is not in it", key.name);
        }
    }
}

/// Every default, and both ends of every range, are what the reader takes; what lies beyond is not, for the schema either
/// where it can tell.
#[test]
fn ranges_are_kept_by_reader_and_schema() {
    let validator = validator();
    let mut refused = 0;
    for section in Config::sections() {
        for key in &section.keys {
            let kind = match key.kind {
                tidegate_config::Kind::Off(kind) => *kind,
                kind => kind,
            };
            let (inside, outside) = match kind {
                tidegate_config::Kind::Count { min, max } => {
                    let mut outside = vec![format!("{}", i128::from(max) + 1)];
                    outside.push(format!("{}", i128::from(min) - 1));
                    (vec![min.to_string(), max.to_string()], outside)
                }
                tidegate_config::Kind::Bytes { min, max } => {
                    let text = |bytes: u64| format!("\"{bytes}B\"");
                    (vec![text(min), text(max)], vec![text(min - 1), text(max + 1)])
                }
                tidegate_config::Kind::Span { min, max } => {
                    let text = |ns: u64| format!("\"{ns}ns\"");
                    let below = (min > 0).then(|| text(min - 1));
                    (vec![text(min), text(max)], below.into_iter().chain([text(max + 1)]).collect())
                }
                tidegate_config::Kind::Choice(words) => {
                    (words.iter().map(|word| format!("\"{word}\"")).collect(), vec!["\"nothing\"".to_owned()])
                }
                tidegate_config::Kind::Switch => (vec!["true".to_owned()], vec!["\"true\"".to_owned()]),
                _ => continue,
            };
            let header =
                if section.repeats { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) };
            let text = |value: &str| format!("{header}\n{} = {value}\n", key.name);
            for value in inside {
                let text = text(&value);
                assert!(validator.is_valid(&to_json(&text)), "{text}");
                if let Err(problems) = read(text.as_bytes()) {
                    // Rules between keys may still refuse it, ranges may not.
                    let ranges = problems.list.iter().filter(|problem| {
                        matches!(problem.kind.name(), "range" | "type" | "value" | "choice")
                    });
                    assert_eq!(ranges.count(), 0, "{text}{problems}");
                }
            }
            for value in outside {
                let text = text(&value);
                let problems = read(text.as_bytes()).expect_err(&text);
                let problem = &problems.list[0];
                assert!(["range", "choice", "type"].contains(&problem.kind.name()), "{text}{problems}");
                assert!(
                    problem.kind.allowed().is_some_and(|allowed| allowed.contains(&kind.to_string())),
                    "{text}"
                );
                if !matches!(kind, tidegate_config::Kind::Bytes { .. } | tidegate_config::Kind::Span { .. }) {
                    assert!(!validator.is_valid(&to_json(&text)), "{text}");
                }
                refused += 1;
            }
        }
    }
    assert!(refused > 80, "{refused}");
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let validator = validator();
    for text in [
        "[engine]\nshrads = 1\n",
        "[engin]\n",
        "engine = 3\n",
        "[stream]\nbars = \"1s\"\n",
        "[listen]\nquic = 1\n",
    ] {
        assert!(read(text.as_bytes()).is_err() && !validator.is_valid(&to_json(text)), "{text}");
    }
}

#[test]
fn a_plan_says_what_changes_and_what_needs_a_restart() {
    let old = "[engine]\nshards = 2\n[[stream]]\nbars = \"1s\"\n[[stream]]\nbars = \"1m\"\n";
    let new = "[engine]\nshards = 3\n[subscribers]\nsubscriptions_max = 7\n[[stream]]\nbars = \"1m\"\nlate = \"side\"\n[[stream]]\nhosts = \"1m\"\n";
    let [old, new] = [old, new].map(|text| read(text.as_bytes()).unwrap().config);
    let text = changes(&old, &new).to_string();
    assert!(text.contains("engine.shards 2 -> 3"), "{text}");
    let expected = "~ subscribers.subscriptions_max 10000 -> 7\n- stream bars.1s removed\n\
                    ~ stream bars.1m changed: it begins anew\n+ stream hosts.1m added\n\
                    ! engine.shards 2 -> 3 needs a restart\n";
    assert_eq!(text, expected);
    let fixed = "~ subscribers.subscriptions_max 10000 -> 7\n! stream bars.1s removed needs a restart\n\
                 ! stream bars.1m changed needs a restart\n! stream hosts.1m added needs a restart\n\
                 ! engine.shards 2 -> 3 needs a restart\n";
    assert_eq!(changes(&old, &new).with_fixed_streams().to_string(), fixed);
    let mut running = old.clone();
    changes(&old, &new).apply(&mut running, &new);
    assert_eq!(running.subscribers.subscriptions_max, 7);
    assert_eq!((running.engine.shards, &running.stream), (2, &new.stream));
    let left = changes(&running, &new);
    assert_eq!(left.restarts().count(), left.0.len(), "what was applied is not said again: {left}");
    let mut running = old.clone();
    changes(&old, &new).with_fixed_streams().apply(&mut running, &new);
    assert_eq!(running.stream, old.stream);
    let left = changes(&running, &new).with_fixed_streams();
    assert_eq!(left.restarts().count(), left.0.len());
    assert!(changes(&old, &old).is_empty());
    let unset = changes(&old, &Config::default());
    assert!(unset.0.iter().any(|change| matches!(change, Change::Restart { .. })), "{unset}");
}
