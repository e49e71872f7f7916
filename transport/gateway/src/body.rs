//! Answers in pieces: a large one is copied to the connection bit by bit, under a permit and a deadline, so that peers that
//! read slowly cannot keep many of them in memory.

use crate::error::ApiError;
use crate::server::Shared;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Answers up to this size need no permit, in bytes.
const SMALL_MAX: usize = 64 * 1024;
/// Bytes handed to the connection at once.
const PIECE: usize = 32 * 1024;

/// A large answer on its way.
struct Large {
    bytes: Bytes,
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for Large {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Asked whenever the connection has room again; one that never has is ended by its write timeout.
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        if Instant::now() >= self.deadline {
            return Poll::Ready(Some(Err(std::io::ErrorKind::TimedOut.into())));
        }
        let count = self.bytes.len().min(PIECE);
        // A copy: a slice would keep the whole answer in memory until its last byte is written.
        let piece = Bytes::copy_from_slice(&self.bytes[..count]);
        self.bytes = self.bytes.slice(count..);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// An answer of any size.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Result<Response<Body>, ApiError> {
    let bytes = bytes.into();
    let body = if bytes.len() <= SMALL_MAX {
        Body::from(bytes)
    } else {
        let permit = Arc::clone(&shared.large).acquire_owned();
        let permit = tokio::time::timeout(shared.options.answer_timeout, permit).await;
        let Ok(Ok(permit)) = permit else {
            return Err(ApiError::busy("too many large answers are on their way"));
        };
        let deadline = Instant::now() + shared.options.answer_timeout;
        Body::new(Large { bytes, deadline, _permit: permit })
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// An answer in JSON.
pub(crate) async fn json(shared: &Arc<Shared>, mut text: String) -> Result<Response<Body>, ApiError> {
    text.push('\n');
    answer(shared, "application/json", text).await
}
