//! Files that are part of the program: the dashboard, as it was built, and the page that shows the API.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use std::collections::HashMap;
use std::io::Write;
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_64;

/// The dashboard's files, by path.
const DASHBOARD: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// A file that is always there.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    name: &'static str,
    bytes: &'static [u8],
}

pub(crate) const OPENAPI: Own = Own { name: "openapi.json", bytes: include_bytes!("openapi.json") };
pub(crate) const DOCS: Own = Own { name: "docs.html", bytes: include_bytes!("docs.html") };
pub(crate) const DOCS_SCRIPT: Own = Own { name: "docs.js", bytes: include_bytes!("docs.js") };
/// What stands in for a dashboard that was not built.
const UNBUILT: Own = Own { name: "unbuilt.html", bytes: include_bytes!("unbuilt.html") };

struct Asset {
    bytes: &'static [u8],
    content_type: &'static str,
    etag: String,
    /// Names with a hash of the content in them: another content has another name.
    hashed: bool,
    compressed: OnceLock<Option<Bytes>>,
}

impl Asset {
    fn new(name: &str, bytes: &'static [u8]) -> Self {
        Self {
            content_type: content_type(name),
            etag: format!("\"{:016x}\"", xxh3_64(bytes)),
            hashed: is_hashed(name),
            compressed: OnceLock::new(),
            bytes,
        }
    }

    fn is_text(&self) -> bool {
        ["text/", "application/json", "image/svg"].iter().any(|kind| self.content_type.starts_with(kind))
    }

    /// The content packed, if that is shorter. Made once, when it is first asked for.
    fn compressed(&self) -> Option<Bytes> {
        let pack = || {
            let mut packed = GzEncoder::new(Vec::new(), Compression::best());
            packed.write_all(self.bytes).ok()?;
            packed.finish().ok().filter(|packed| packed.len() < self.bytes.len()).map(Bytes::from)
        };
        self.compressed
            .get_or_init(|| if self.is_text() && self.bytes.len() > 1_024 { pack() } else { None })
            .clone()
    }

    fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let asked =
            |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let known = asked(header::IF_NONE_MATCH);
        let same =
            known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == self.etag || tag.trim() == "*");
        let mut response = Response::new(Body::empty());
        if same {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            let gzip = asked(header::ACCEPT_ENCODING).split(',').any(|coding| {
                let mut parts = coding.split(';').map(str::trim);
                parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
            });
            let packed = if gzip { self.compressed() } else { None };
            if packed.is_some() {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            *response.body_mut() = Body::from(packed.unwrap_or(Bytes::from_static(self.bytes)));
        }
        let cache = if self.hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
        let set = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
            (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
            (header::VARY, HeaderValue::from_static("accept-encoding")),
        ];
        response.headers_mut().extend(set);
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}

pub(crate) struct Assets {
    dashboard: HashMap<&'static str, Asset>,
    own: HashMap<&'static str, Asset>,
}

impl Assets {
    /// What was built into the program.
    pub(crate) fn embedded() -> Self {
        Self::of(DASHBOARD)
    }

    fn of(dashboard: &[(&'static str, &'static [u8])]) -> Self {
        let own = [OPENAPI, DOCS, DOCS_SCRIPT, UNBUILT];
        Self {
            dashboard: dashboard.iter().map(|&(name, bytes)| (name, Asset::new(name, bytes))).collect(),
            own: own.iter().map(|own| (own.name, Asset::new(own.name, own.bytes))).collect(),
        }
    }

    /// One of the files that are always there.
    pub(crate) fn own(&self, own: Own, headers: &HeaderMap) -> Response<Body> {
        self.own.get(own.name).map_or_else(Response::default, |asset| asset.answer(headers))
    }

    /// A file of the dashboard. Only names that were built in are known, so a path cannot lead anywhere else.
    pub(crate) fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        let name = path.strip_prefix('/').filter(|name| !name.is_empty()).unwrap_or("index.html");
        if let Some(asset) = self.dashboard.get(name) {
            return Some(asset.answer(headers));
        }
        (path == "/").then(|| self.own(UNBUILT, headers))
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" | "webmanifest" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Whether a name is one that Vite gave: `assets/index-DiwrgTda.js`.
fn is_hashed(name: &str) -> bool {
    let Some((stem, _)) = name.strip_prefix("assets/").and_then(|file| file.rsplit_once('.')) else {
        return false;
    };
    let Some(at) = stem.len().checked_sub(9) else { return false };
    stem.is_char_boundary(at)
        && stem[at..].starts_with('-')
        && stem[at + 1..].bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashed_names_are_kept_for_long() {
        for name in ["assets/index-DiwrgTda.js", "assets/a-b-_1234567.css", "assets/x-0-abcdef.js"] {
            assert!(is_hashed(name), "{name}");
        }
        for name in [
            "index.html",
            "index-DiwrgTda.js",
            "assets/index.js",
            "assets/a.b",
            "assets/é-DiwrgTd.js",
            "assets/x-short.js",
        ] {
            assert!(!is_hashed(name), "{name}");
        }
    }

    #[test]
    fn files_say_how_long_they_last_and_what_they_are() {
        const TEXT: &[u8] = &[b'a'; 5_000];
        let assets = Assets::of(&[("index.html", b"<p>"), ("assets/i-12345678.js", TEXT)]);
        let ask = |path: &str, headers: &[(header::HeaderName, &str)]| {
            let pairs =
                headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
            let response = assets.answer(path, &pairs.collect())?;
            let of = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            Some((
                response.status().as_u16(),
                of(header::CACHE_CONTROL)?,
                of(header::CONTENT_ENCODING),
                of(header::ETAG)?,
            ))
        };
        let (status, cache, encoding, etag) = ask("/", &[]).unwrap();
        assert_eq!((status, cache.as_str(), encoding), (200, "no-cache", None));
        assert_eq!(ask("/", &[(header::IF_NONE_MATCH, &etag)]).unwrap().0, 304);
        assert_eq!(ask("/index.html", &[(header::IF_NONE_MATCH, "\"other\"")]).unwrap().0, 200);
        let (_, cache, encoding, _) =
            ask("/assets/i-12345678.js", &[(header::ACCEPT_ENCODING, "br, gzip")]).unwrap();
        assert_eq!(
            (cache.as_str(), encoding.as_deref()),
            ("public, max-age=31536000, immutable", Some("gzip"))
        );
        assert_eq!(ask("/assets/i-12345678.js", &[(header::ACCEPT_ENCODING, "gzip;q=0")]).unwrap().2, None);
        for path in ["/../Cargo.toml", "//index.html", "/assets/", "/assets/../index.html", "/%2e%2e/x", ""] {
            assert!(path.is_empty() || ask(path, &[]).is_none(), "{path}");
        }
    }

    #[test]
    fn without_a_dashboard_the_first_page_says_so() {
        let assets = Assets::of(&[]);
        assert_eq!(assets.answer("/", &HeaderMap::new()).unwrap().status(), StatusCode::OK);
        assert!(assets.answer("/index.html", &HeaderMap::new()).is_none());
    }
}
