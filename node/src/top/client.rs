//! Questions to a gateway over HTTP: one connection, opened again when it breaks.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest answer taken. A page of a thousand records is well under a megabyte.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// It is no address of a gateway.
    #[error("`{url}` is no address of a gateway ({reason}); write e.g. http://127.0.0.1:8080")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody answers there, or not to the end.
    #[error("no answer from {authority}: {reason}")]
    Unreachable {
        /// Where.
        authority: String,
        /// Why.
        reason: String,
    },
    /// It answers that it cannot.
    #[error("{authority} answers {status}: {message}")]
    Refused {
        /// Where.
        authority: String,
        /// HTTP status.
        status: u16,
        /// What is wrong, for programs.
        code: String,
        /// Its words.
        message: String,
        /// What would be allowed, if it says.
        allowed: Vec<String>,
    },
    /// What answers is no Tidegate.
    #[error("{authority} answers what is no JSON: is it a Tidegate?")]
    NotJson {
        /// Where.
        authority: String,
    },
}

/// A gateway.
pub(crate) struct Node {
    authority: String,
    /// In front of every path, without a slash at its end.
    prefix: String,
    wait: Duration,
    link: Option<SendRequest<Empty<Bytes>>>,
}

impl Node {
    /// The gateway at `url`, each of whose answers may take `wait`.
    pub(crate) fn new(url: &str, wait: Duration) -> Result<Self, AskError> {
        let bad = |reason: &str| AskError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = full.parse().map_err(|error| bad(&format!("{error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("the gateway speaks no TLS; go through the machine it runs on")),
            _ => return Err(bad("it must begin with http://")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("it names no host"))?;
        if uri.query().is_some() {
            return Err(bad("nothing may follow a `?`"));
        }
        Ok(Self {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            wait,
            link: None,
        })
    }

    /// Asks; `path` may have a query.
    pub(crate) async fn ask(&mut self, path: &str) -> Result<Value, AskError> {
        let reused = self.link.is_some();
        let mut outcome = self.ask_once(path).await;
        // The server may have closed a silent connection just now.
        if reused && matches!(outcome, Err(AskError::Unreachable { .. })) {
            outcome = self.ask_once(path).await;
        }
        outcome
    }

    async fn ask_once(&mut self, path: &str) -> Result<Value, AskError> {
        // Kept only when the answer was read to its end.
        let link = self.link.take();
        match tokio::time::timeout(self.wait, exchange(&self.authority, &self.prefix, path, link)).await {
            Ok(Ok((link, status, body))) => {
                self.link = Some(link);
                self.read(status, &body)
            }
            Ok(Err(reason)) => Err(AskError::Unreachable { authority: self.authority.clone(), reason }),
            Err(_) => {
                let reason = format!("nothing in {} s", self.wait.as_secs_f64());
                Err(AskError::Unreachable { authority: self.authority.clone(), reason })
            }
        }
    }

    fn read(&self, status: u16, body: &[u8]) -> Result<Value, AskError> {
        let authority = self.authority.clone();
        let value: Value =
            serde_json::from_slice(body).map_err(|_| AskError::NotJson { authority: authority.clone() })?;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let error = &value["error"];
        let text = |value: &Value| Some(value.as_str()?.to_owned());
        let message = text(&error["message"]).unwrap_or_else(|| "without a reason".to_owned());
        let code = text(&error["code"]).unwrap_or_default();
        let allowed = error["allowed"].as_array().into_iter().flatten().filter_map(text).collect();
        Err(AskError::Refused { authority, status, code, message, allowed })
    }
}

/// One request over `link`, or over a new one.
async fn exchange(
    authority: &str,
    prefix: &str,
    path: &str,
    link: Option<SendRequest<Empty<Bytes>>>,
) -> Result<(SendRequest<Empty<Bytes>>, u16, Bytes), String> {
    let mut link = match link.filter(|link| !link.is_closed()) {
        Some(link) => link,
        None => {
            let stream = TcpStream::connect(authority).await.map_err(|error| error.to_string())?;
            let (link, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            // Ends with its link.
            tokio::spawn(async move { drop(connection.await) });
            link
        }
    };
    link.ready().await.map_err(|error| error.to_string())?;
    let request = Request::get(format!("{prefix}{path}"))
        .header("host", authority)
        .header("accept", "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = link.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok((link, status, body.map_err(|error| error.to_string())?.to_bytes()))
}

/// A text as a value of a query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn addresses_are_understood_and_others_refused_with_a_reason() {
        let node = |url: &str| Node::new(url, Duration::from_secs(1));
        for (url, authority, prefix) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", ""),
            ("127.0.0.1:8080/", "127.0.0.1:8080", ""),
            ("http://[::1]:9/x/", "[::1]:9", "/x"),
            ("http://box", "box:80", ""),
        ] {
            let node = node(url).unwrap();
            assert_eq!((node.authority.as_str(), node.prefix.as_str()), (authority, prefix));
        }
        for (url, why) in [
            ("https://box", "no TLS"),
            ("ftp://box", "http://"),
            ("", "no address"),
            ("http://a b", "no address"),
            ("http://box/?x", "`?`"),
        ] {
            let error = node(url).err().expect(url).to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
        assert_eq!(escape("BTC/USD é"), "BTC%2FUSD%20%C3%A9");
    }

    /// A server that gives one answer per connection, then hangs up.
    fn serve(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                    head.push(byte[0]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn answers_of_every_kind_are_told_apart() {
        let address = serve(&[
            "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 1}",
            "HTTP/1.1 503 Busy\r\ncontent-length: 39\r\n\r\n{\"error\":{\"message\":\"it is starting\"}}  ",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\ncut",
            "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 2}",
        ]);
        let mut node = Node::new(&address, Duration::from_secs(5)).unwrap();
        assert_eq!(node.ask("/v1/status").await.unwrap()["a"], 1);
        // It hung up, so this goes over a new connection.
        let error = node.ask("/v1/status").await.unwrap_err();
        assert!(error.to_string().ends_with("answers 503: it is starting"), "{error}");
        assert!(matches!(node.ask("/v1/status").await, Err(AskError::NotJson { .. })));
        // Cut: asked once more, as it could have been an old connection, or told.
        match node.ask("/v1/status").await {
            Ok(value) => assert_eq!(value["a"], 2),
            Err(error) => {
                assert!(matches!(error, AskError::Unreachable { .. }), "{error}");
                assert_eq!(node.ask("/v1/status").await.unwrap()["a"], 2);
            }
        }
        assert!(matches!(node.ask("/v1/status").await, Err(AskError::Unreachable { .. })));
    }
}
