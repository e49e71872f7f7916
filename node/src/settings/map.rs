//! From the configuration to the options of what it configures.

use super::Settings;
use crate::exit::Failure;
use crate::place::data_folder;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_actors::runtime::RuntimeOptions;
use tidegate_auth::TokenLimits;
use tidegate_config::Config;
use tidegate_engine::FenceOptions;
use tidegate_gateway::GatewayOptions;
use tidegate_journal::{JournalOptions, SyncPolicy};
use tidegate_live::{LiveOptions, SnapshotOptions};
use tidegate_proto::Quotas;
use tidegate_proto::access::PrincipalRule;
use tidegate_proto::feed::FeedServerOptions;
use tidegate_proto::hub::HubOptions;
use tidegate_quic::{AuthOptions, Limits, SecurityOptions, TlsOptions};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

impl Settings {
    /// A path of the configuration: one in the file is meant from the file's folder.
    pub(crate) fn beside(&self, path: &PathBuf) -> PathBuf {
        match self.file.as_deref().and_then(std::path::Path::parent) {
            Some(beside) => beside.join(path),
            None => path.clone(),
        }
    }

    /// The data folder.
    pub(crate) fn data_folder(&self) -> Result<PathBuf, Failure> {
        data_folder(self.config.data.folder.as_ref().map(|folder| self.beside(folder)).as_ref())
    }

    /// The folder of the node that the server is, in a cluster.
    pub(crate) fn cluster_folder(&self) -> Option<PathBuf> {
        self.config.cluster.folder.as_ref().map(|folder| self.beside(folder))
    }

    /// Who may connect, how they show who they are, and what they may do.
    ///
    /// # Errors
    /// When a rule names a verb that there is not.
    pub(crate) fn security(&self) -> Result<SecurityOptions, Failure> {
        let Config { tls, auth, auth_rule, quotas, .. } = &self.config;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| self.beside(path));
        let rule = |rule: &tidegate_config::AuthRule| {
            let verbs = rule.verbs.iter().map(|verb| verb.parse()).collect::<Result<_, _>>();
            Ok(PrincipalRule {
                principal: rule.principal.clone().unwrap_or_default(),
                verbs: verbs.map_err(Failure::usage)?,
                streams: rule.streams.clone(),
                symbols: rule.symbols.clone(),
            })
        };
        Ok(SecurityOptions {
            tls: TlsOptions { cert: path(&tls.cert), key: path(&tls.key), client_ca: path(&tls.client_ca) },
            auth: AuthOptions {
                token_keys: auth.token_keys.iter().map(|path| self.beside(path)).collect(),
                audience: auth.audience.clone(),
                required: auth.required,
                rules: auth_rule.iter().map(rule).collect::<Result<_, Failure>>()?,
                tokens: TokenLimits {
                    lifetime_max_s: auth.token_lifetime.0 / SECOND,
                    skew_max_s: auth.token_skew.0 / SECOND,
                },
                session_max: auth.session_max.into(),
            },
            quotas: Quotas {
                events_per_second: quotas.events_per_second,
                bytes_per_second: quotas.bytes_per_second.map(|bytes| bytes.0),
                symbols: quotas.symbols,
                subscriptions: quotas.subscriptions,
            },
        })
    }
}

/// When the journal is brought to the disk.
pub(crate) fn sync(config: &Config) -> SyncPolicy {
    match config.journal.sync.on() {
        None => SyncPolicy::Never,
        Some(span) if span.0 == 0 => SyncPolicy::Always,
        Some(span) => SyncPolicy::Every(span.0),
    }
}

/// When snapshots are taken; `None` for never.
pub(crate) fn snapshots(config: &Config) -> Option<SnapshotOptions> {
    let journal = &config.journal;
    let every_bytes = journal.snapshot_bytes.on().map_or(0, |bytes| bytes.0);
    let every_records = journal.snapshot_records.on().unwrap_or(0);
    let every_ns = journal.snapshot_every.on().map_or(0, |span| span.0);
    let keep = journal.snapshots_kept;
    let options = SnapshotOptions { every_bytes, every_records, every_ns, keep };
    (every_bytes.max(every_records).max(every_ns) > 0).then_some(options)
}

/// Segments of the journal. `lineage` is a number that no other journal has.
pub(crate) fn journal(config: &Config, lineage: u128) -> JournalOptions {
    JournalOptions {
        lineage,
        segment_bytes: config.journal.segment_bytes.0,
        retain_bytes: config.journal.keep_bytes.on().map_or(0, |bytes| bytes.0),
        retain_ns: config.journal.keep_age.on().map_or(0, |span| span.0),
    }
}

/// Bounds on stamps that leap ahead.
pub(crate) fn fence(config: &Config) -> Option<FenceOptions> {
    let confirm_count = config.engine.fence_confirm;
    let jump = config.engine.fence.on()?;
    Some(FenceOptions { jump_max_ns: jump.0, confirm_count, ..FenceOptions::default() })
}

/// The engine. `incarnation` is a number that no other start has.
pub(crate) fn live(config: &Config, incarnation: u64) -> LiveOptions {
    let engine = &config.engine;
    let feed = &config.feed;
    LiveOptions {
        runtime: RuntimeOptions {
            shards: engine.shards,
            placement: engine.placement,
            idle: engine.idle,
            pin: engine.pin,
            ring_events: engine.ring_events,
            batch_max: engine.batch_max,
            ..RuntimeOptions::default()
        },
        disorder_ns: engine.disorder.0,
        fence: fence(config),
        idle_after_ns: engine.idle_after.0,
        names_max: engine.names_max,
        feed: FeedServerOptions {
            sources_max: feed.sources_max,
            names_max: feed.names_max,
            credit_events: feed.credit_events,
            silence_ns: feed.silence.0,
            hello_ns: feed.hello.0,
            heartbeat_ms: u32::try_from(feed.heartbeat.0 / MS).unwrap_or(u32::MAX),
            durable: false,
            incarnation,
            server: concat!("tidegate ", env!("CARGO_PKG_VERSION")).to_owned(),
            ..FeedServerOptions::default()
        },
        hub: hub(config),
        journal: None,
        replication: None,
        snapshots: None,
        groups: None,
    }
}

/// Results and their readers.
pub(crate) fn hub(config: &Config) -> HubOptions {
    let subscribers = &config.subscribers;
    HubOptions {
        ring_records: subscribers.retained_records,
        keys_max: subscribers.keys_max,
        lookback_records: subscribers.lookback_records,
        lookback_total: subscribers.lookback_total,
        past_records_max: subscribers.past_records_max,
        subscribers_max: subscribers.subscriptions_max,
    }
}

/// QUIC.
pub(crate) fn quic(config: &Config) -> Limits {
    let limits = &config.limits;
    // Their ranges end at 1 GiB.
    let bytes = |bytes: tidegate_config::Bytes| u32::try_from(bytes.0).unwrap_or(u32::MAX);
    Limits {
        receive_window: bytes(limits.receive_window),
        stream_receive_window: bytes(limits.stream_receive_window),
        send_window: bytes(limits.send_window),
        streams_max: limits.streams_max,
        mtu: limits.mtu,
        idle_timeout: limits.idle_timeout.into(),
        keep_alive: limits.keep_alive.on().map(Duration::from),
        connections_max: limits.connections_max,
        validate_above: limits.validate_above,
        handshake_timeout: limits.handshake_timeout.into(),
        ..Limits::default()
    }
}

/// HTTP, listening there.
pub(crate) fn gateway(config: &Config, listen: SocketAddr) -> GatewayOptions {
    let gateway = &config.gateway;
    GatewayOptions {
        listen,
        hosts: gateway.hosts.clone(),
        origins: gateway.origins.clone(),
        connections_max: gateway.connections_max,
        head_timeout: gateway.head_timeout.into(),
        write_timeout: gateway.write_timeout.into(),
        answer_timeout: gateway.answer_timeout.into(),
        large_answers_max: gateway.large_answers_max,
        message_bytes_max: usize::try_from(gateway.message_max.0).unwrap_or(usize::MAX),
        subscriptions_max: gateway.subscriptions_max,
        ping_every: gateway.ping_every.into(),
        idle_timeout: gateway.idle_timeout.into(),
        linger: gateway.linger.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_config::{Kind, read};

    /// The defaults are declared with the keys; they are those of what they configure.
    #[test]
    fn an_empty_configuration_is_the_defaults_of_the_parts() {
        let config = Config::default();
        assert_eq!(quic(&config), Limits::default());
        assert_eq!(gateway(&config, GatewayOptions::default().listen), GatewayOptions::default());
        assert_eq!(hub(&config), HubOptions::default());
        let (ours, parts) = (live(&config, 1), LiveOptions::default());
        assert_eq!(ours.runtime, parts.runtime);
        assert_eq!((ours.disorder_ns, ours.idle_after_ns), (parts.disorder_ns, parts.idle_after_ns));
        assert_eq!((ours.fence, ours.names_max), (parts.fence, parts.names_max));
        assert_eq!(ours.feed, FeedServerOptions { server: ours.feed.server.clone(), ..parts.feed });
        let bars = tidegate_actors::bars::BarOptions { history: true, ..Default::default() };
        assert_eq!(config.bars.options(), bars);
    }

    /// Both ends of every range are what the parts take, so that no configuration is accepted and then refused at the start.
    #[test]
    fn the_parts_take_both_ends_of_every_range() {
        let mut looked_at = 0;
        for section in Config::sections() {
            if !["engine", "subscribers", "limits", "gateway"].contains(&section.name) {
                continue;
            }
            for key in &section.keys {
                let kind = if let Kind::Off(kind) = key.kind { *kind } else { key.kind };
                let ends = match kind {
                    Kind::Count { min, max } => [min.to_string(), max.to_string()],
                    Kind::Bytes { min, max } => [min, max].map(|bytes| format!("\"{bytes}B\"")),
                    Kind::Span { min, max } => [min, max].map(|ns| format!("\"{ns}ns\"")),
                    _ => continue,
                };
                for end in ends {
                    let text = format!("[{}]\n{} = {end}\n", section.name, key.name);
                    // Rules between keys may refuse an end, such as a time-out below its ping.
                    let Ok(read) = read(text.as_bytes()) else { continue };
                    let config = read.config;
                    assert!(live(&config, 1).runtime.validate().is_ok(), "{text}");
                    assert_eq!(quic(&config).check(), Ok(()), "{text}");
                    assert!(gateway(&config, config.listen.quic).check().is_ok(), "{text}");
                    assert_eq!(hub(&config).check(), Ok(()), "{text}");
                    looked_at += 1;
                }
            }
        }
        assert!(looked_at > 60, "{looked_at}");
    }
}
