//! A server that bounds what each connection may take: time for a request's head and body, silence within an answer, and how many there are.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::Limits;

/// Largest head of a request, in bytes: vouchers travel in it.
const MAX_HEAD: usize = 64 << 10;
/// Pause after an accept that failed, so that having no file handle left does not burn a processor.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP/1.1 until `stop`, then waits for the answers under way, up to [`Limits::grace`].
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_HEAD);
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let place = tokio::select! {
            Ok(place) = places.clone().acquire_owned() => place,
            () = &mut stop => break,
        };
        let connection = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => connection,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        // A streamed token must not wait for the acknowledgement of the last.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
        let service = TowerToHyperService::new(router.clone());
        let served = graceful.watch(server.serve_connection(TokioIo::new(connection), service));
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    // New connections are refused from here on, instead of waiting for nobody.
    drop(listener);
    if timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("answers that took longer than the grace were cut off");
    }
}

/// A request's body took too long.
#[derive(Debug, thiserror::Error)]
#[error("it came too slowly")]
struct TooSlow;

/// Whether an error is, or comes from, a body that took too long.
pub(crate) fn too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<TooSlow>())
}

/// The body, which fails if it is not at its end in time.
pub(crate) fn in_time(body: Body, within: Duration) -> Body {
    Body::new(Timed { body, silence: None, end: Box::pin(sleep(within)), waiting: true })
}

/// The body, which fails if nothing comes for so long.
pub(crate) fn never_silent(body: Body, silence: Duration) -> Body {
    Body::new(Timed { body, silence: Some(silence), end: Box::pin(sleep(silence)), waiting: false })
}

/// A body that must come in time.
struct Timed {
    body: Body,
    /// How long it may be silent; without, `end` is that of the whole.
    silence: Option<Duration>,
    end: Pin<Box<Sleep>>,
    /// Whether `end` counts: nobody is silent whom nobody asks.
    waiting: bool,
}

impl hyper::body::Body for Timed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = self.silence.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::into_inner)));
        }
        if let (Some(silence), false) = (self.silence, self.waiting) {
            self.waiting = true;
            self.end.as_mut().reset(Instant::now() + silence);
        }
        self.end.as_mut().poll(context).map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
