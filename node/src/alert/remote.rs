//! What operators say while a node writes to the store: it is told through its gateway.

use super::act::{Act, is_name, quiet_body};
use super::folder;
use crate::exit::{Exit, Failure};
use anyhow::Context;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How long the node may take to answer.
const WAIT: Duration = Duration::from_secs(10);
/// Longest token that is read.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// Tells the node that holds the store in `folder`. What it answers, in words.
pub(super) fn say(folder: &Path, token: Option<&Path>, acts: &[Act]) -> Result<String, Failure> {
    let Some(url) = folder::holder(folder).and_then(|holder| holder.http) else {
        return Err(folder::held(folder));
    };
    let token = token.map(read_token).transpose()?;
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(WAIT))
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent("tidegate")
        .build();
    let agent = ureq::Agent::from(config);
    let mut said = String::new();
    for act in acts {
        if let Act::Ack { id, .. } | Act::FalsePositive { id, .. } | Act::Suppress { id, .. } = act {
            is_name(id).map_err(Failure::usage)?;
        }
        let (path, body) = request(act);
        said += &post(&agent, &url, &path, &body, token.as_deref())?;
    }
    Ok(said)
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let read = || -> anyhow::Result<String> {
        let mut text = String::new();
        std::io::Read::read_to_string(
            &mut std::io::Read::take(std::fs::File::open(path)?, TOKEN_BYTES_MAX),
            &mut text,
        )?;
        Ok(text.trim().to_owned())
    };
    read().with_context(|| path.display().to_string()).map_err(|error| Failure::new(Exit::Input, error))
}

/// Where and how an act is told.
fn request(act: &Act) -> (String, Value) {
    let of = |id: &str, verb: &str| format!("/v1/alerts/{id}/{verb}");
    match act {
        Act::Ack { id, words } => (of(id, "ack"), document(words)),
        Act::FalsePositive { id, words } => (of(id, "false-positive"), document(words)),
        Act::Suppress { id, span } => (of(id, "suppress"), document(span)),
        Act::Quiet { why, whom, span } => ("/v1/alerts/quiets".to_owned(), quiet_body(*why, whom, span)),
        Act::Lift { number } => (format!("/v1/alerts/quiets/{number}/lift"), json!({})),
    }
}

fn document(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

fn post(
    agent: &ureq::Agent,
    url: &str,
    path: &str,
    body: &Value,
    token: Option<&str>,
) -> Result<String, Failure> {
    let mut asked = agent.post(format!("{url}{path}")).header("content-type", "application/json");
    if let Some(token) = token {
        asked = asked.header("authorization", format!("Bearer {token}"));
    }
    let failed = |error: anyhow::Error| {
        let text = format!("the node at {url} holds the alerts, and did not answer");
        Failure::new(Exit::Output, error.context(text))
    };
    let mut answer = asked.send(body.to_string().as_bytes()).map_err(|error| failed(error.into()))?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().map_err(|error| failed(error.into()))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|_| failed(anyhow::anyhow!("what it says is no JSON: is it a Tidegate?")))?;
    if (200..300).contains(&status) {
        return Ok(value["said"].as_str().unwrap_or_default().to_owned());
    }
    let message = value["error"]["message"].as_str().unwrap_or("without a reason");
    Err(match status {
        400 | 404 => Failure::usage(message),
        401 | 403 => Failure::new(
            Exit::Output,
            anyhow::anyhow!("the node at {url} answers {status}: {message}; --token shows it who you are"),
        ),
        _ => Failure::new(Exit::Output, anyhow::anyhow!("the node at {url} answers {status}: {message}")),
    })
}
