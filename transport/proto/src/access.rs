//! Who may do what, and how much of it: rules as they are written, compiled for looking up, and what one connection got.
//!
//! Rights are looked up when something opens (a feed says hello, defines a name, a subscription is asked for), never per event.
//! What is not allowed by a rule is refused, once there is a rule.

use crate::close::{Close, CloseCode};
use crate::subscription::{Keys, Subscription};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The principal of a peer that did not say who it is. No certificate or token can carry this name.
pub const ANONYMOUS: &str = "anonymous";
/// Longest name of a principal, in bytes.
pub const PRINCIPAL_BYTES_MAX: usize = 255;
/// Most rules of a policy, and most patterns of a list.
pub const RULES_MAX: usize = 4_096;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Send events. The stream is the source's name.
    Publish,
    /// Read results.
    Subscribe,
    /// See how the server runs, and change it.
    Admin,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Admin];

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Verb {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        let found = Self::ALL.into_iter().find(|verb| verb.name() == text);
        found.ok_or_else(|| AccessError::Verb { found: text.to_owned() })
    }
}

/// What is wrong with a rule or a quota.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// There is no such verb.
    #[error("there is no verb `{found}`, allowed are publish, subscribe and admin")]
    Verb {
        /// What was written.
        found: String,
    },
    /// A list that allows nothing at all.
    #[error("{list} names nothing; leave it out for all, or name some, as in `BTC*`")]
    Empty {
        /// The list.
        list: &'static str,
    },
    /// A pattern that is none.
    #[error("`{found}` in {list} is no pattern; write a name, the beginning of names as `BTC*`, or `*`")]
    Pattern {
        /// The list.
        list: &'static str,
        /// What was written.
        found: String,
    },
    /// A name no principal can have.
    #[error(
        "`{found}` is no name of a principal: 1 to {PRINCIPAL_BYTES_MAX} bytes without control characters"
    )]
    Principal {
        /// What was written.
        found: String,
    },
    /// `anonymous` is the name of those who have none.
    #[error("`{ANONYMOUS}` is the name of peers that do not say who they are; nobody else can have it")]
    Reserved,
    /// More than there may be.
    #[error("{what}: {found}, allowed are {min} to {max}")]
    Range {
        /// What.
        what: &'static str,
        /// The number.
        found: u64,
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
}

fn check(what: &'static str, found: u64, min: u64, max: u64) -> Result<(), AccessError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(AccessError::Range { what, found, min, max })
}

/// Checks the name of a principal, as a certificate or a token has it.
///
/// # Errors
/// [`AccessError::Principal`] for one that is empty, too long or unprintable, [`AccessError::Reserved`] for `anonymous`.
pub fn check_principal(name: &str) -> Result<(), AccessError> {
    if name == ANONYMOUS {
        return Err(AccessError::Reserved);
    }
    if (1..=PRINCIPAL_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(AccessError::Principal { found: name.escape_debug().take(80).collect() })
}

/// A rule, as people write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalRule {
    /// Whom it is about: a name, the beginning of names as `desk-*`, or `*` for all who say who they are. Those who do not are
    /// `anonymous`, and only a rule that says so is about them.
    pub principal: String,
    /// What they may do.
    pub verbs: Vec<Verb>,
    /// Streams: names or beginnings of names; for publishing, names of sources.
    #[serde(default = "all")]
    pub streams: Vec<String>,
    /// Symbols: names or beginnings of names.
    #[serde(default = "all")]
    pub symbols: Vec<String>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

impl PrincipalRule {
    /// Everything of some verbs.
    #[must_use]
    pub fn new(principal: &str, verbs: &[Verb]) -> Self {
        Self { principal: principal.to_owned(), verbs: verbs.to_vec(), streams: all(), symbols: all() }
    }

    /// Checks it.
    ///
    /// # Errors
    /// [`AccessError`] for the first thing that cannot be.
    pub fn check(&self) -> Result<(), AccessError> {
        if self.principal != ANONYMOUS {
            check_principal(&self.principal)?;
        }
        Patterns::new("principal", std::slice::from_ref(&self.principal))?;
        Scope::new(&self.verbs, &self.streams, &self.symbols).map(drop)
    }
}

/// Names and beginnings of names, for looking up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Patterns {
    /// Sorted.
    names: Vec<String>,
    /// Sorted, and none begins with another: so the last one that is not behind a name is the only one it can begin with.
    prefixes: Vec<String>,
}

impl Patterns {
    fn new(list: &'static str, texts: &[String]) -> Result<Self, AccessError> {
        if texts.is_empty() {
            return Err(AccessError::Empty { list });
        }
        check(list, texts.len() as u64, 1, RULES_MAX as u64)?;
        let (mut names, mut sorted) = (Vec::new(), Vec::new());
        for text in texts {
            let (stem, prefix) = text.strip_suffix('*').map_or((&**text, false), |stem| (stem, true));
            if stem.contains('*') || (stem.is_empty() && !prefix) || text.len() > 256 {
                let found = text.escape_debug().take(80).collect();
                return Err(AccessError::Pattern { list, found });
            }
            if prefix { &mut sorted } else { &mut names }.push(stem.to_owned());
        }
        names.sort_unstable();
        sorted.sort_unstable();
        let mut prefixes: Vec<String> = Vec::new();
        for prefix in sorted {
            if !prefixes.last().is_some_and(|last| prefix.starts_with(last.as_str())) {
                prefixes.push(prefix);
            }
        }
        Ok(Self { names, prefixes })
    }

    /// Whether everything that begins like this is covered.
    fn covers_prefix(&self, prefix: &str) -> bool {
        let behind = self.prefixes.partition_point(|known| known.as_str() <= prefix);
        behind > 0 && prefix.starts_with(self.prefixes[behind - 1].as_str())
    }

    fn covers(&self, name: &str) -> bool {
        self.covers_prefix(name) || self.names.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    /// The first few, for people.
    fn tell(&self, into: &mut Vec<String>) {
        into.extend(self.prefixes.iter().take(TOLD_MAX + 1).map(|prefix| format!("{prefix}*")));
        into.extend(self.names.iter().take(TOLD_MAX + 1).cloned());
    }
}

/// Patterns named in a refusal.
const TOLD_MAX: usize = 6;

/// Some verbs over some streams and symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    verbs: [bool; Verb::ALL.len()],
    streams: Patterns,
    symbols: Patterns,
}

impl Scope {
    /// Patterns as in [`PrincipalRule`].
    ///
    /// # Errors
    /// [`AccessError`] for a list that is empty or holds what is no pattern.
    pub fn new(verbs: &[Verb], streams: &[String], symbols: &[String]) -> Result<Self, AccessError> {
        if verbs.is_empty() {
            return Err(AccessError::Empty { list: "verbs" });
        }
        Ok(Self {
            verbs: Verb::ALL.map(|verb| verbs.contains(&verb)),
            streams: Patterns::new("streams", streams)?,
            symbols: Patterns::new("symbols", symbols)?,
        })
    }

    fn everything() -> Self {
        let all = Patterns { names: Vec::new(), prefixes: vec![String::new()] };
        Self { verbs: [true; Verb::ALL.len()], streams: all.clone(), symbols: all }
    }

    fn over(&self, verb: Verb, stream: &str) -> bool {
        self.verbs[verb as usize] && self.streams.covers(stream)
    }

    fn covers(&self, verb: Verb, stream: &str, symbols: Symbols<'_>) -> bool {
        self.over(verb, stream)
            && match symbols {
                Symbols::All => self.symbols.covers_prefix(""),
                Symbols::Prefix(prefix) => self.symbols.covers_prefix(prefix),
                Symbols::Name(name) => self.symbols.covers(name),
            }
    }
}

/// Symbols somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbols<'a> {
    /// All there are and will be.
    All,
    /// All whose names begin like this.
    Prefix(&'a str),
    /// This one.
    Name(&'a str),
}

impl std::fmt::Display for Symbols<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all symbols"),
            Self::Prefix(prefix) => write!(f, "`{prefix}*`"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

/// All rules, for looking up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<(Patterns, Scope)>,
}

impl Policy {
    /// Without a rule everybody may do everything; with one, only what some rule says.
    ///
    /// # Errors
    /// [`AccessError`] for the first rule that cannot be.
    pub fn new(rules: &[PrincipalRule]) -> Result<Self, AccessError> {
        check("rules", rules.len() as u64, 0, RULES_MAX as u64)?;
        let compile = |rule: &PrincipalRule| {
            rule.check()?;
            let whom = Patterns::new("principal", std::slice::from_ref(&rule.principal))?;
            Ok((whom, Scope::new(&rule.verbs, &rule.streams, &rule.symbols)?))
        };
        Ok(Self { rules: rules.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// Whether a principal may do this.
    #[must_use]
    pub fn allows(&self, principal: &str, verb: Verb, stream: &str, symbols: Symbols<'_>) -> bool {
        self.grant(principal, None, Quotas::default()).allows(verb, stream, symbols)
    }

    /// What a principal may do, narrowed to what its token says.
    #[must_use]
    pub fn grant(&self, principal: &str, narrowed: Option<Scope>, quotas: Quotas) -> Grant {
        let about = |whom: &Patterns| {
            if principal == ANONYMOUS { whom.names == [ANONYMOUS] } else { whom.covers(principal) }
        };
        let scopes: Vec<Scope> = if self.rules.is_empty() {
            vec![Scope::everything()]
        } else {
            self.rules.iter().filter(|(whom, _)| about(whom)).map(|(_, scope)| scope.clone()).collect()
        };
        Grant { principal: principal.into(), scopes: scopes.into(), narrowed: narrowed.map(Arc::new), quotas }
    }
}

/// What the peer of one connection may do. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    principal: Arc<str>,
    scopes: Arc<[Scope]>,
    narrowed: Option<Arc<Scope>>,
    quotas: Quotas,
}

impl Default for Grant {
    /// Somebody unknown who may do everything: a server without rules.
    fn default() -> Self {
        Policy::default().grant(ANONYMOUS, None, Quotas::default())
    }
}

impl Grant {
    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Arc<str> {
        &self.principal
    }

    /// How much of it.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Whether the rights are the same, whatever the quotas.
    #[must_use]
    pub fn same_rights(&self, other: &Self) -> bool {
        (&self.scopes, &self.narrowed) == (&other.scopes, &other.narrowed)
    }

    /// Whether this may be done.
    #[must_use]
    pub fn allows(&self, verb: Verb, stream: &str, symbols: Symbols<'_>) -> bool {
        self.scopes.iter().any(|scope| scope.covers(verb, stream, symbols))
            && self.narrowed.as_ref().is_none_or(|scope| scope.covers(verb, stream, symbols))
    }

    /// Whether this may be done with some symbol of the stream.
    #[must_use]
    pub fn allows_some(&self, verb: Verb, stream: &str) -> bool {
        let over = |scope: &Scope| scope.over(verb, stream);
        self.scopes.iter().any(over) && self.narrowed.as_deref().is_none_or(over)
    }

    /// Whether this may be done with every symbol of every stream, those to come included.
    #[must_use]
    pub fn allows_all(&self, verb: Verb) -> bool {
        let all = |scope: &Scope| {
            scope.verbs[verb as usize] && scope.streams.covers_prefix("") && scope.symbols.covers_prefix("")
        };
        self.scopes.iter().any(all) && self.narrowed.as_deref().is_none_or(all)
    }

    /// As [`Grant::allows`], with the words to refuse it.
    ///
    /// # Errors
    /// [`CloseCode::UNAUTHORIZED`], with what is allowed instead.
    pub fn check(&self, verb: Verb, stream: &str, symbols: Symbols<'_>) -> Result<(), Close> {
        if self.allows(verb, stream, symbols) {
            return Ok(());
        }
        let principal = &self.principal;
        let mut allowed = Vec::new();
        let over = |scope: &&Scope| scope.over(verb, stream);
        let narrow = self.narrowed.as_deref().filter(over);
        if self.narrowed.is_none() || narrow.is_some() {
            self.scopes.iter().filter(over).for_each(|scope| scope.symbols.tell(&mut allowed));
        }
        if allowed.is_empty() {
            let reason = format!("`{principal}` may not {verb} `{stream}`");
            return Err(Close::new(CloseCode::UNAUTHORIZED, reason));
        }
        // A token says it more narrowly than the rules, or it would not be what refuses.
        if let Some(narrow) = narrow {
            allowed.clear();
            narrow.symbols.tell(&mut allowed);
        }
        let more = if allowed.len() > TOLD_MAX { ", …" } else { "" };
        allowed.truncate(TOLD_MAX);
        let allowed = allowed.join(", ");
        let reason =
            format!("`{principal}` may not {verb} {symbols} of `{stream}`, allowed are {allowed}{more}");
        Err(Close::new(CloseCode::UNAUTHORIZED, reason))
    }

    /// Whether this may be published at all, by the name of its source.
    ///
    /// # Errors
    /// As [`Grant::check`].
    pub fn check_source(&self, source: &str) -> Result<(), Close> {
        if self.allows_some(Verb::Publish, source) {
            return Ok(());
        }
        let reason = format!("`{}` may not publish `{source}`", self.principal);
        Err(Close::new(CloseCode::UNAUTHORIZED, reason))
    }

    /// Whether a subscription may be had: each of its keys and prefixes, for each of its streams, within one rule. Nothing is
    /// left out in silence, so asking for all is refused when only some are allowed.
    ///
    /// # Errors
    /// As [`Grant::check`].
    pub fn check_subscription(&self, subscription: &Subscription) -> Result<(), Close> {
        for stream in &subscription.streams {
            match &subscription.keys {
                Keys::All => self.check(Verb::Subscribe, stream, Symbols::All)?,
                Keys::Some { names, prefixes } => {
                    for name in names {
                        self.check(Verb::Subscribe, stream, Symbols::Name(name))?;
                    }
                    for prefix in prefixes {
                        self.check(Verb::Subscribe, stream, Symbols::Prefix(prefix))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What somebody who was let in may do, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// What.
    pub grant: Grant,
    /// How long from now it stands before it must be shown again who it is; `None` for as long as the connection does.
    pub stands: Option<Duration>,
}

impl From<Grant> for Admission {
    fn from(grant: Grant) -> Self {
        Self { grant, stands: None }
    }
}

/// How much a principal may use, over all its connections. `None`: as much as the server's other limits allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Events it may publish in a second: 1 to 10^12. Beyond that its feeds get no credit and wait.
    pub events_per_second: Option<u64>,
    /// Bytes its feeds may send in a second: 65,536 to 10^13. Beyond that its connections are not read and wait.
    pub bytes_per_second: Option<u64>,
    /// Different symbols it may ever define: 0 to 2^26. Events of further ones share one counted overflow name.
    pub symbols: Option<u32>,
    /// Subscriptions at once: 0 to 2^20. Further ones are refused.
    pub subscriptions: Option<u32>,
}

impl Quotas {
    /// Least bytes a second: one frame, so that whatever is allowed at all also gets through.
    pub const BYTES_PER_SECOND_MIN: u64 = 65_536;

    /// Checks every bound.
    ///
    /// # Errors
    /// [`AccessError::Range`] for the first number out of range.
    pub fn check(&self) -> Result<(), AccessError> {
        check("events_per_second", self.events_per_second.unwrap_or(1), 1, 1_000_000_000_000)?;
        let (min, bytes) = (Self::BYTES_PER_SECOND_MIN, self.bytes_per_second);
        check("bytes_per_second", bytes.unwrap_or(min), min, 10_000_000_000_000)?;
        check("symbols", self.symbols.unwrap_or(0).into(), 0, 1 << 26)?;
        check("subscriptions", self.subscriptions.unwrap_or(0).into(), 0, 1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn rule(principal: &str, verbs: &[Verb], streams: &[&str], symbols: &[&str]) -> PrincipalRule {
        let (streams, symbols) = (owned(streams), owned(symbols));
        PrincipalRule { streams, symbols, ..PrincipalRule::new(principal, verbs) }
    }

    #[test]
    fn what_no_rule_says_is_refused() {
        use Symbols::{All, Name, Prefix};
        use Verb::{Admin, Publish, Subscribe};
        let policy = Policy::new(&[
            rule("feed-*", &[Publish], &["cme", "ice-*"], &["ES*", "CL"]),
            rule("desk", &[Subscribe], &["bars.*"], &["*"]),
            rule("desk", &[Subscribe], &["ind.1m"], &["BTC*", "ETHUSD"]),
            rule("anonymous", &[Subscribe], &["bars.1m"], &["DEMO"]),
            rule("*", &[Subscribe], &["status"], &["*"]),
        ])
        .unwrap();
        for (principal, verb, stream, symbols, want) in [
            ("feed-1", Publish, "cme", Name("ESZ6"), true),
            ("feed-1", Publish, "ice-2", Name("CL"), true),
            ("feed-1", Publish, "ice-2", Name("CLZ6"), false),
            ("feed-1", Publish, "cme2", Name("ESZ6"), false),
            ("feed-1", Publish, "cme", All, false),
            ("feed-1", Publish, "cme", Name(""), false),
            ("feed", Publish, "cme", Name("ESZ6"), false),
            ("feed-1", Subscribe, "bars.1s", Name("ES"), false),
            ("desk", Subscribe, "bars.1s", All, true),
            ("desk", Subscribe, "bars.1s", Prefix(""), true),
            ("desk", Subscribe, "ind.1m", Prefix("BTCU"), true),
            ("desk", Subscribe, "ind.1m", Prefix("BT"), false),
            ("desk", Subscribe, "ind.1m", Prefix("ETHUSD"), false),
            ("desk", Subscribe, "ind.1m", Name("ETHUSD"), true),
            ("desk", Subscribe, "ind.1m", All, false),
            ("desk", Publish, "bars.1s", All, false),
            ("desk", Admin, "bars.1s", All, false),
            ("desk2", Subscribe, "bars.1s", All, false),
            ("desk2", Subscribe, "status", All, true),
            ("anonymous", Subscribe, "bars.1m", Name("DEMO"), true),
            ("anonymous", Subscribe, "status", All, false),
            ("", Subscribe, "bars.1m", Name("DEMO"), false),
        ] {
            let found = policy.allows(principal, verb, stream, symbols);
            assert_eq!(found, want, "{principal} {verb} {stream} {symbols}");
        }
        assert!(Policy::default().allows(ANONYMOUS, Admin, "anything", All), "without rules");
    }

    #[test]
    fn a_token_only_narrows() {
        let policy = Policy::new(&[rule("desk", &[Verb::Subscribe], &["*"], &["BTC*"])]).unwrap();
        let token =
            Scope::new(&[Verb::Subscribe, Verb::Publish], &owned(&["bars.*"]), &owned(&["*"])).unwrap();
        let grant = policy.grant("desk", Some(token), Quotas::default());
        assert!(grant.allows(Verb::Subscribe, "bars.1s", Symbols::Prefix("BTC")));
        assert!(!grant.allows(Verb::Subscribe, "ind.1s", Symbols::Prefix("BTC")), "the token does not");
        assert!(!grant.allows(Verb::Subscribe, "bars.1s", Symbols::Name("ETH")), "the rules do not");
        assert!(!grant.allows(Verb::Publish, "bars.1s", Symbols::Name("BTC")), "the rules do not");
    }

    #[test]
    fn some_and_all_are_told_apart() {
        let subscribe = [Verb::Subscribe];
        let policy = Policy::new(&[
            rule("desk", &subscribe, &["bars.*"], &["BTC*"]),
            rule("all", &subscribe, &["*"], &["*"]),
            rule("every-stream", &subscribe, &["*"], &["BTC*"]),
        ])
        .unwrap();
        let token = || Some(Scope::new(&subscribe, &owned(&["ind.*"]), &owned(&["*"])).unwrap());
        for (principal, token, stream, some, all) in [
            ("desk", None, "bars.1s", true, false),
            ("desk", None, "ind.1s", false, false),
            ("desk", token(), "bars.1s", false, false),
            ("all", None, "bars.1s", true, true),
            ("all", token(), "ind.1s", true, false),
            ("all", token(), "bars.1s", false, false),
            ("every-stream", None, "bars.1s", true, false),
            ("nobody", None, "bars.1s", false, false),
        ] {
            let grant = policy.grant(principal, token, Quotas::default());
            let found = (grant.allows_some(Verb::Subscribe, stream), grant.allows_all(Verb::Subscribe));
            assert_eq!(found, (some, all), "{principal} {stream}");
            assert!(!grant.allows_all(Verb::Admin) && !grant.allows_some(Verb::Admin, stream));
        }
        assert!(Grant::default().allows_all(Verb::Admin), "without rules");
    }

    #[test]
    fn refusals_say_what_is_allowed() {
        let policy = Policy::new(&[rule("desk", &[Verb::Subscribe], &["bars.*"], &["BTC*", "ETH"])]).unwrap();
        let grant = policy.grant("desk", None, Quotas::default());
        let ask = |stream: &str, keys: &[&str]| {
            let keys = Keys::of_patterns(keys.iter().copied());
            grant.check_subscription(&Subscription { keys, ..Subscription::to([stream]) })
        };
        assert_eq!(ask("bars.1s", &["BTC*", "ETH"]), Ok(()));
        for (stream, keys, says) in [
            ("bars.1s", &[][..], "`desk` may not subscribe all symbols of `bars.1s`, allowed are BTC*, ETH"),
            ("bars.1s", &["BTC*", "E*"], "`desk` may not subscribe `E*` of `bars.1s`, allowed are BTC*, ETH"),
            ("ind.1s", &["BTC*"], "`desk` may not subscribe `ind.1s`"),
        ] {
            let close = ask(stream, keys).unwrap_err();
            assert_eq!((close.code, close.reason.as_str()), (CloseCode::UNAUTHORIZED, says));
        }
        assert_eq!(grant.check_source("bars.1s").unwrap_err().reason, "`desk` may not publish `bars.1s`");
    }

    #[test]
    fn rules_that_cannot_be_are_named() {
        let good = rule("a", &[Verb::Publish], &["*"], &["*"]);
        for (bad, says) in [
            (PrincipalRule { verbs: vec![], ..good.clone() }, "verbs names nothing"),
            (PrincipalRule { streams: vec![], ..good.clone() }, "streams names nothing"),
            (PrincipalRule { symbols: owned(&["A*B"]), ..good.clone() }, "`A*B` in symbols is no pattern"),
            (PrincipalRule { symbols: owned(&[""]), ..good.clone() }, "`` in symbols is no pattern"),
            (PrincipalRule { principal: String::new(), ..good.clone() }, "`` is no name of a principal"),
            (PrincipalRule { principal: "a\nb".into(), ..good.clone() }, "`a\\nb` is no name of a principal"),
            (PrincipalRule { principal: "a*b".into(), ..good.clone() }, "`a*b` in principal is no pattern"),
        ] {
            let error = Policy::new(&[good.clone(), bad]).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
        assert_eq!(check_principal("anonymous"), Err(AccessError::Reserved));
        assert_eq!("read".parse::<Verb>().unwrap_err(), AccessError::Verb { found: "read".into() });
        let error = Quotas { bytes_per_second: Some(9), ..Quotas::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "bytes_per_second: 9, allowed are 65536 to 10000000000000");
        let long = Quotas { events_per_second: Some(0), ..Quotas::default() }.check().unwrap_err();
        assert_eq!(long.to_string(), "events_per_second: 0, allowed are 1 to 1000000000000");
    }

    proptest! {
        /// Looking up is the same as trying every pattern.
        #[test]
        fn patterns_mean_what_they_say(texts in vec("[ab]{0,3}\\*?", 1..12), name in "[ab]{0,4}") {
            let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
            prop_assume!(!texts.is_empty());
            let patterns = Patterns::new("symbols", &texts).unwrap();
            let begins = |text: &String| text.strip_suffix('*').is_some_and(|stem| name.starts_with(stem));
            prop_assert_eq!(patterns.covers_prefix(&name), texts.iter().any(begins));
            prop_assert_eq!(patterns.covers(&name), texts.iter().any(|text| begins(text) || *text == name));
        }
    }
}
