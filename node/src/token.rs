//! `tidegate token`: keys that sign tokens, and tokens.

use crate::cli::{TokenCommand, TokenIssueArgs, TokenKeygenArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::place::now_s;
use crate::render::{Table, Ui, duration, instant};
use serde_json::json;
use std::path::Path;
use tidegate_auth::{Narrow, SigningKey, TokenLimits, TokenRequest};
use tidegate_quic::tls::write_private;

/// The key that signs, in its folder.
const KEY: &str = "token-key.pem";
/// Its public half, for servers.
const PUBLIC: &str = "token-key.pub.pem";

pub(crate) fn run(command: &TokenCommand, ui: &Ui) -> Outcome {
    match command {
        TokenCommand::Keygen(args) => keygen(args, ui),
        TokenCommand::Issue(args) => issue(args, ui),
    }
}

fn keygen(args: &TokenKeygenArgs, ui: &Ui) -> Outcome {
    let output = |error: anyhow::Error| Failure::new(Exit::Output, error);
    let (key_file, public_file) = (args.dir.join(KEY), args.dir.join(PUBLIC));
    for file in [&key_file, &public_file] {
        if file.exists() && !args.force {
            return Err(output(anyhow::anyhow!("`{}` exists already; --force replaces it", file.display())));
        }
    }
    let key = SigningKey::generate().map_err(|error| Failure::new(Exit::Internal, error))?;
    let private = key.to_pem().map_err(|error| Failure::new(Exit::Internal, error))?;
    let cannot = |path: &Path, error| {
        output(anyhow::Error::new(error).context(format!("cannot write `{}`", path.display())))
    };
    std::fs::create_dir_all(&args.dir).map_err(|error| cannot(&args.dir, error))?;
    write_private(&key_file, private.as_bytes()).map_err(|error| output(error.into()))?;
    std::fs::write(&public_file, key.public().to_pem()).map_err(|error| cannot(&public_file, error))?;
    let id = key.public().id();
    if args.json {
        let (key, public) = (key_file.display().to_string(), public_file.display().to_string());
        ui.print_json(&json!({ "key": key, "public": public, "id": id }));
        return Ok(Exit::Ok);
    }
    let mut facts = Table::facts();
    facts.fact("key", format!("{}: keep it secret, for `tidegate token issue --key`", key_file.display()));
    facts.fact("public", format!("{}: for `tidegate serve --token-key`", public_file.display()));
    facts.fact("id", id);
    ui.print(&facts.render(ui, 0));
    Ok(Exit::Ok)
}

fn issue(args: &TokenIssueArgs, ui: &Ui) -> Outcome {
    let text = std::fs::read(&args.key).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("cannot read `{}`", args.key.display()));
        Failure::new(Exit::Input, error)
    })?;
    let key = SigningKey::of_pem(&text).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("`{}` cannot sign tokens", args.key.display()));
        Failure::new(Exit::Input, error)
    })?;
    let (lifetime_s, max_s) = (args.ttl / 1_000_000_000, TokenLimits::default().lifetime_max_s);
    if !(1..=86_400).contains(&lifetime_s) {
        return Err(Failure::usage(format!("--ttl is {lifetime_s} s, allowed are 1s to 1d")));
    }
    if lifetime_s > max_s {
        ui.note(&format!("servers take tokens of up to {max_s} s unless they are told otherwise"));
    }
    let mut narrow = Narrow::default();
    let all = [args.verbs.is_empty(), args.streams.is_empty(), args.symbols.is_empty()];
    if !args.verbs.is_empty() {
        narrow.verbs = args.verbs.clone();
    }
    if !args.streams.is_empty() {
        narrow.streams = args.streams.clone();
    }
    if !args.symbols.is_empty() {
        narrow.symbols = args.symbols.clone();
    }
    let request = TokenRequest {
        principal: args.principal.clone(),
        audience: args.audience.clone(),
        from_s: now_s(),
        lifetime_s,
        narrow: (all != [true; 3]).then_some(narrow),
    };
    let usage = |error| Failure::new(Exit::Usage, error);
    let out = if args.bearer {
        key.issue_bearer(&request).map_err(usage)?
    } else {
        let credential = key.issue(&request).map_err(usage)?;
        credential.to_json().map_err(|error| Failure::new(Exit::Internal, error))?
    };
    let Some(file) = &args.out else {
        ui.print(&format!("{out}\n"));
        return Ok(Exit::Ok);
    };
    write_private(file, out.as_bytes()).map_err(|error| Failure::new(Exit::Output, error))?;
    let until = instant((request.from_s + lifetime_s).saturating_mul(1_000_000_000));
    let span = duration(lifetime_s * 1_000_000_000);
    let who = &request.principal;
    ui.note(&format!("`{}` is good for `{who}` until {until} ({span})", file.display()));
    Ok(Exit::Ok)
}
