//! `tidegate certs`: a CA of one's own, certificates for servers and clients, and what they say.

use crate::cli::{CertsCommand, CertsMakeArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::place::now_s;
use crate::render::{Table, Tone, Ui, instant};
use serde_json::json;
use tidegate_quic::certs::{self, CertsError, CertsRequest, Shown};
use tidegate_quic::tls::DEV_NAMES;

fn failure(error: CertsError) -> Failure {
    let exit = match &error {
        CertsError::Name { .. } | CertsError::Range { .. } | CertsError::Principal(_) => Exit::Usage,
        CertsError::Exists { .. } => Exit::Output,
        _ => Exit::Input,
    };
    Failure::new(exit, error)
}

pub(crate) fn run(command: &CertsCommand, ui: &Ui) -> Outcome {
    let (shown, json) = match command {
        CertsCommand::Init(args) => {
            let hosts = match args.host.as_slice() {
                [] => DEV_NAMES.map(str::to_owned).to_vec(),
                hosts => hosts.to_vec(),
            };
            (certs::init(&args.dir, &request(args, hosts), now_s()), args.json)
        }
        CertsCommand::Add(args) => {
            if args.host.is_empty() && args.client.is_empty() {
                return Err(Failure::usage("name what is to be made: --host NAME or --client NAME"));
            }
            (certs::add(&args.dir, &request(args, args.host.clone()), now_s()), args.json)
        }
        CertsCommand::Show(args) => (certs::show(&args.path), args.json),
    };
    tell(&shown.map_err(failure)?, json, ui);
    Ok(Exit::Ok)
}

fn request(args: &CertsMakeArgs, hosts: Vec<String>) -> CertsRequest {
    CertsRequest { hosts, clients: args.client.clone(), days: args.days, force: args.force }
}

fn text(at_s: i64) -> String {
    u64::try_from(at_s).map_or_else(|_| at_s.to_string(), |at| instant(at.saturating_mul(1_000_000_000)))
}

fn tell(shown: &[Shown], as_json: bool, ui: &Ui) {
    if as_json {
        let all = shown.iter().map(|one| {
            json!({
                "file": one.path.display().to_string(), "what": one.what, "names": one.names,
                "from": one.good_s.map(|(from, _)| text(from)), "until": one.good_s.map(|(_, until)| text(until)),
                "exposed": one.exposed,
            })
        });
        return ui.print_json(&all.collect());
    }
    let now = i64::try_from(now_s()).unwrap_or(i64::MAX);
    let mut table = Table::new(&["file", "what", "good for", "until"]);
    for one in shown {
        let (tone, until) = match one.good_s {
            Some((from, _)) if from > now => (Tone::Bad, format!("from {}", text(from))),
            Some((_, until)) if until < now => (Tone::Bad, format!("{}, over", text(until))),
            Some((_, until)) => (Tone::Plain, text(until)),
            None if one.exposed => (Tone::Bad, "others can read it: chmod 600".to_owned()),
            None => (Tone::Faint, "keep it secret".to_owned()),
        };
        let file = one.path.display().to_string();
        table.toned([
            (Tone::Plain, file.as_str()),
            (Tone::Plain, one.what),
            (Tone::Plain, &one.names.join(" ")),
            (tone, &until),
        ]);
    }
    ui.print(&table.render(ui, 0));
}
