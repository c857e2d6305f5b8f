//! Reading of request bodies: their size, their number at once, and their time.
//!
//! A body is read completely before anything looks at it. A body that declares itself too large is refused before a
//! byte of it is read, and large ones together never take more than [`BODIES_BYTES_MAX`].

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dacapo_api::{ApiError, Problem};
use http::{HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::extract::Declined;
use crate::limits::{BODIES_BYTES_MAX, BODY_TIME_MAX, SMALL_BODY_BYTES_MAX};

/// One permit of the room.
const UNIT_BYTES: usize = 1 << 10;

/// The memory that large bodies share.
#[derive(Clone, Debug)]
pub(crate) struct Bodies(Arc<Semaphore>);

impl Bodies {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_BYTES_MAX / UNIT_BYTES)))
    }

    /// Reads the body of `request`, of at most `bytes_max`, and keeps its memory until it is answered.
    pub async fn answer(self, bytes_max: usize, request: Request, next: Next) -> Response {
        if request.body().is_end_stream() {
            return next.run(request).await;
        }
        let (parts, body) = request.into_parts();
        let (bytes, _room) = match tokio::time::timeout(BODY_TIME_MAX, self.take_in(body, bytes_max)).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => return declined(error),
            Err(_) => {
                let problem = Problem::new("too_slow", format!("the body did not arrive within {BODY_TIME_MAX:?}"));
                let help = "send less in one request, or retry when this node reads less from others";
                return declined(problem.help(help).unavailable());
            }
        };
        next.run(Request::from_parts(parts, Body::from(bytes))).await
    }

    async fn take_in(&self, mut body: Body, max: usize) -> Result<(Bytes, Option<SemaphorePermit<'_>>), ApiError> {
        let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if told > max {
            return Err(too_large(told, max));
        }
        let exact = body.size_hint().exact().is_some();
        let (mut bytes, mut room) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let message = format!("the body broke off: {error}");
                Problem::new("bad_request", message).invalid()
            })?;
            // Trailers mean nothing here.
            let Ok(data) = frame.into_data() else { continue };
            let len = bytes.len() + data.len();
            if len > max {
                return Err(too_large(len, max));
            }
            if room.is_none() && len > SMALL_BODY_BYTES_MAX {
                let most = if exact { told } else { max };
                let permits = u32::try_from(most.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
                room = self.0.acquire_many(permits).await.ok();
                bytes.reserve_exact(if exact { told.saturating_sub(bytes.len()) } else { 0 });
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.into(), room))
    }
}

fn too_large(bytes: usize, max: usize) -> ApiError {
    let problem = Problem::new("too_large", format!("the body has {bytes} bytes or more, at most {max} are allowed"));
    problem.field("actual", bytes).field("max", max).help("send less in one request").invalid()
}

/// The rest of the body is not read, so the connection ends with the answer.
fn declined(error: ApiError) -> Response {
    let mut answer = Declined(error).into_response();
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::stream;

    use super::*;

    fn chunks(count: usize) -> Body {
        let chunk = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; SMALL_BODY_BYTES_MAX]));
        Body::from_stream(stream::iter((0..count).map(move |_| chunk())))
    }

    #[tokio::test]
    async fn large_bodies_wait_for_room_and_small_ones_do_not() {
        let bodies = Bodies::new();
        let half = BODIES_BYTES_MAX / 2;
        let first = bodies.take_in(chunks(2), half).await.unwrap();
        let second = bodies.take_in(chunks(2), half).await.unwrap();
        assert!(first.1.is_some() && second.1.is_some());
        let mut third = std::pin::pin!(bodies.take_in(chunks(3), half));
        assert!(third.as_mut().now_or_never().is_none(), "there is no room");
        let (small, room) = bodies.take_in(chunks(1), half).await.unwrap();
        assert!(small.len() == SMALL_BODY_BYTES_MAX && room.is_none());
        drop(first);
        assert_eq!(third.await.unwrap().0.len(), 3 * SMALL_BODY_BYTES_MAX);
    }
}
