//! `tidegate config`: check, explain, template, schema, plan.

use super::{LoadError, Settings, load, name, refused};
use crate::cli::{Cli, Command, ConfigArgs, ConfigCommand, ServeArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{Table, Tone, Ui};
use clap::Parser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tidegate_config::{Change, Config, Key, SectionInfo, TEMPLATES, Template, changes, schema};

pub(crate) fn run(args: &ConfigArgs, ui: &Ui) -> Outcome {
    match &args.command {
        ConfigCommand::Check { file, json } => check(file, *json, ui),
        ConfigCommand::Explain { key, config, options, json } => {
            explain(key.as_deref(), config.as_deref(), options, *json, ui)
        }
        ConfigCommand::Template { name } => template(name.as_deref(), ui),
        ConfigCommand::Schema => {
            ui.print(&format!("{:#}\n", schema()));
            Ok(Exit::Ok)
        }
        ConfigCommand::Plan { old, new, json } => plan(old, new, *json, ui),
    }
}

fn check(file: &Path, as_json: bool, ui: &Ui) -> Outcome {
    let file_name = name(file);
    match load(file) {
        Ok(read) => {
            let streams = read.config.plan()?.streams()?;
            let derived = crate::serve::derived::names(&read.config);
            let names: Vec<String> =
                streams.iter().map(|stream| stream.name.clone()).chain(derived).collect();
            if as_json {
                ui.print_json(&json!({ "file": file_name, "ok": true, "problems": [], "streams": names }));
            } else {
                ui.print(&format!("{file_name} is a configuration; it serves {}\n", names.join(", ")));
            }
            Ok(Exit::Ok)
        }
        Err(LoadError::Problems(problems)) => {
            if as_json {
                let list: Vec<Value> = problems
                    .list
                    .iter()
                    .map(|problem| {
                        json!({
                            "line": problem.line, "column": problem.column, "key": problem.key,
                            "kind": problem.kind.name(), "message": problem.to_string(),
                            "allowed": problem.kind.allowed(), "nearest": problem.kind.nearest(),
                        })
                    })
                    .collect();
                ui.print_json(
                    &json!({ "file": file_name, "ok": false, "problems": list, "more": problems.more }),
                );
            } else {
                ui.report(&problems.render(&file_name, ui.colors_stderr()));
            }
            Ok(Exit::Differs)
        }
        Err(error) => Err(refused(file, error, ui)),
    }
}

/// The options behind `--`, as `serve` would take them.
fn serve_options(config: Option<&Path>, options: &[String]) -> Result<ServeArgs, Failure> {
    let line = ["tidegate".to_owned(), "serve".to_owned()].into_iter().chain(options.iter().cloned());
    let parsed = Cli::try_parse_from(line).map_err(|error| {
        // clap's text begins with `error: `, as ours does.
        let text = error.render().to_string();
        Failure::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end())
    })?;
    match parsed.command {
        Command::Serve(mut args) => {
            args.plan.config = args.plan.config.or_else(|| config.map(Path::to_owned));
            Ok(*args)
        }
        _ => Err(Failure::usage("behind `--` stand options of `serve`")),
    }
}

/// One key with its value.
struct Explained<'a> {
    path: String,
    key: &'a Key,
    value: Option<String>,
    from: String,
}

fn explained<'a>(section: &'a SectionInfo, settings: &Settings) -> Vec<Explained<'a>> {
    let count = if section.repeats { settings.config.repeated(section.name) } else { 1 };
    let mut all = Vec::new();
    for at in 0..count {
        for key in &section.keys {
            let path = if section.repeats {
                format!("{}[{at}].{}", section.name, key.name)
            } else {
                format!("{}.{}", section.name, key.name)
            };
            let from = settings.origin(&path);
            all.push(Explained { value: settings.config.show(section.name, at, key.name), path, key, from });
        }
    }
    all
}

fn explain(
    wanted: Option<&str>,
    config: Option<&Path>,
    options: &[String],
    as_json: bool,
    ui: &Ui,
) -> Outcome {
    let settings = Settings::of(&serve_options(config, options)?, ui)?;
    let (sections, one) = match wanted {
        None => (Config::sections(), None),
        Some(path) => match Config::find(path) {
            Ok((section, key)) => (vec![section], key),
            Err(nearest) => {
                let hint = nearest.map_or_else(
                    || "`tidegate config explain` lists all".to_owned(),
                    |nearest| format!("did you mean `{nearest}`?"),
                );
                return Err(Failure::usage(format!("there is no key or section `{path}`; {hint}")));
            }
        },
    };
    if as_json {
        let keys: Vec<Value> =
            sections.iter().flat_map(|section| to_json(section, one.as_ref(), &settings)).collect();
        ui.print_json(&keys.into());
        return Ok(Exit::Ok);
    }
    match &one {
        Some(key) => ui.print(&explain_key(&sections[0], key, &settings, ui)),
        None => sections.iter().for_each(|section| ui.print(&explain_section(section, &settings, ui))),
    }
    Ok(Exit::Ok)
}

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("unset")
}

fn applies(key: &Key) -> &'static str {
    if key.reloads { "applied by a reload" } else { "needs a restart" }
}

fn explain_key(section: &SectionInfo, key: &Key, settings: &Settings, ui: &Ui) -> String {
    let mut text = format!("{}.{}\n  {}\n\n", section.name, key.name, key.about);
    let mut facts = Table::facts();
    facts.fact("allowed", key.kind.to_string());
    facts.fact("default", shown(key.default.as_deref()));
    facts.fact("a change", applies(key));
    for explained in explained(section, settings).iter().filter(|explained| explained.key.name == key.name) {
        let label = if section.repeats { explained.path.as_str() } else { "value" };
        facts.fact(label, format!("{}, from {}", shown(explained.value.as_deref()), explained.from));
    }
    text += &facts.render(ui, 2);
    text
}

fn explain_section(section: &SectionInfo, settings: &Settings, ui: &Ui) -> String {
    let header =
        if section.repeats { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) };
    let mut text = format!("{}  {}\n", ui.paint(Tone::Strong, &header), section.about);
    let mut table = Table::new(&["key", "value", "from", "default"]);
    let values = explained(section, settings);
    for explained in &values {
        let default = shown(explained.key.default.as_deref());
        table.row([&explained.path, shown(explained.value.as_deref()), &explained.from, default]);
    }
    if values.is_empty() {
        section.keys.iter().for_each(|key| table.row([key.name, "", "", shown(key.default.as_deref())]));
    }
    text += &table.render(ui, 2);
    text + "\n"
}

fn to_json(section: &SectionInfo, one: Option<&Key>, settings: &Settings) -> Vec<Value> {
    let keys = section.keys.iter().filter(|key| one.is_none_or(|one| one.name == key.name));
    let all = explained(section, settings);
    let of_key = |key: &Key| {
        let values: Vec<Value> = all
            .iter()
            .filter(|explained| explained.key.name == key.name)
            .map(|explained| json!({ "key": explained.path, "value": explained.value, "from": explained.from }))
            .collect();
        json!({
            "key": format!("{}.{}", section.name, key.name), "about": key.about, "allowed": key.kind.to_string(),
            "default": key.default, "reloads": key.reloads, "values": values,
        })
    };
    keys.map(of_key).collect()
}

fn template(wanted: Option<&str>, ui: &Ui) -> Outcome {
    let Some(wanted) = wanted else {
        let mut table = Table::new(&["template", "for"]);
        TEMPLATES.iter().for_each(|template| table.row([template.name, template.about]));
        ui.print(&table.render(ui, 0));
        return Ok(Exit::Ok);
    };
    match Template::of(wanted) {
        Some(template) => {
            ui.print(&template.text());
            Ok(Exit::Ok)
        }
        None => {
            let names = TEMPLATES.map(|template| template.name).join(", ");
            Err(Failure::usage(format!("there is no template `{wanted}`; there are {names}")))
        }
    }
}

fn plan(old: &PathBuf, new: &PathBuf, as_json: bool, ui: &Ui) -> Outcome {
    let read =
        |path: &PathBuf| Ok::<_, Failure>(load(path).map_err(|error| refused(path, error, ui))?.config);
    let plan = changes(&read(old)?, &read(new)?);
    let later: Vec<&Change> = plan.restarts().collect();
    if as_json {
        let steps: Vec<Value> = plan
            .0
            .iter()
            .map(|change| {
                let restart = later.contains(&change);
                json!({ "step": change.to_string(), "restart": restart })
            })
            .collect();
        ui.print_json(&json!({ "steps": steps, "restart": !later.is_empty() }));
    } else if plan.is_empty() {
        ui.print("nothing changes\n");
    } else {
        ui.print(&plan.to_string());
    }
    Ok(Exit::Ok)
}
