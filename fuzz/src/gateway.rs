//! What a WebSocket client says.

use tidegate_gateway::ops::{Op, parse};
use tidegate_proto::hub::{Hub, HubOptions, StreamMeta};
use tidegate_proto::{MonoTime, StreamKind};

/// Most bytes of an error's message, whatever it quotes.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// A message is an operation or a typed error; a subscription that was read is one that the wire could carry, and the hub
/// takes it or says why not.
///
/// # Panics
/// When it is not so.
pub fn ops(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse(text) {
        Ok(Op::Subscribe { request, .. }) => {
            let mut frames = Vec::new();
            let subscription = request.subscription;
            assert_eq!(subscription.encode(|_| Some(0), &mut frames), Ok(()));
            let meta = |name: &str| StreamMeta { name: name.into(), kind: StreamKind::Bars, columns: vec![] };
            let streams = vec![meta("bars.1s"), meta("bars.1m")];
            let mut hub = Hub::new(streams, HubOptions::default()).expect("defaults are in range");
            if let Err(error) = hub.subscribe(&subscription, MonoTime(0)) {
                assert!(!error.to_string().is_empty());
            }
        }
        Ok(_) => {}
        Err(error) => {
            assert!(!error.code().is_empty() && !error.message().is_empty());
            assert!(error.message().len() <= MESSAGE_BYTES_MAX, "{}", error.message());
        }
    }
}

/// Valid messages.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"op":"subscribe","id":2,"streams":["bars.1s"],"keys":["BTCUSD"],"from":{"sequence":1,"slots":{"bars.1s":{"17":4712}},"incarnation":"1","cut":"loss"}}"#,
        r#"{"op":"subscribe","id":1,"streams":["bars.1s"],"keys":["BTC*","ETHUSD"],"from":{"lookback":100},"conflate":{"every_ms":100},"lag":10000,"past_lag":"disconnect"}"#,
        r#"{"op":"subscribe","id":2,"streams":["bars.1s","bars.1m"],"keys":"all","from":"snapshot","conflate":"latest","past_lag":"conflate"}"#,
        r#"{"op":"subscribe","id":3,"streams":["bars.1m"],"from":"latest","conflate":"none","past_lag":"drop_oldest"}"#,
        r#"{"op":"unsubscribe","id":1}"#,
        r#"{"op":"ping","id":7}"#,
        r#"{"op":"auth","token":"e30.e30.AAAA"}"#,
        r#"{"op":"status","every_ms":1000}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
