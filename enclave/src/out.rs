//! Where an answer goes: sealed, framed, to the host, no faster than it is read.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use cocoon_attestation::Digest;
use cocoon_protocol::frame::Frame;
use cocoon_protocol::sealed::{AnswerHead, ResponseSealer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::openai::ApiError;

/// How long an answer waits for its reader before it counts as given up: it is charged then, and its place is free.
pub const STALLED: Duration = Duration::from_secs(30);
/// Frames that may wait for the host: a slow reader stops its own answer, never the engine.
pub const FRAMES_WAITING: usize = 16;
/// The most data in one frame, so that few bytes wait in all.
const PIECE: usize = 8 << 10;

/// The host has closed its connection, or does not read: nobody waits for the answer any more.
pub(crate) struct Gone;

/// Where an answer goes.
pub(crate) struct Out {
    sealer: ResponseSealer,
    frames: mpsc::Sender<Bytes>,
    digest: digest::Context,
}

impl Out {
    pub(crate) fn new(sealer: ResponseSealer, frames: mpsc::Sender<Bytes>, salt: &[u8; 32]) -> Self {
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(salt);
        Self { sealer, frames, digest }
    }

    /// Pads what follows to at least so many bytes a piece.
    pub(crate) fn pad_to(&mut self, least: usize) {
        self.sealer.pad_to(least);
    }

    pub(crate) async fn send(&mut self, frame: Frame) -> Result<(), Gone> {
        match tokio::time::timeout(STALLED, self.frames.send(frame.encode())).await {
            Ok(sent) => sent.map_err(|_| Gone),
            Err(_) => Err(Gone),
        }
    }

    pub(crate) async fn head(&mut self, status: u16, content_type: &str, more: &[(&str, String)]) -> Result<(), Gone> {
        let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
        headers.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let head = AnswerHead { status, headers };
        let sealed = self.sealer.head(&head).map_err(|_| Gone)?;
        self.send(Frame::Sealed(sealed.into())).await
    }

    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.digest.update(data);
        for piece in data.chunks(PIECE) {
            let sealed = self.sealer.data(piece).map_err(|_| Gone)?;
            self.send(Frame::Sealed(sealed.into())).await?;
        }
        Ok(())
    }

    /// Status and body of an error, where no head was sent yet.
    pub(crate) async fn error(&mut self, error: &ApiError) -> Result<(), Gone> {
        let again: Vec<_> = error.retry_after.iter().map(|seconds| ("retry-after", seconds.to_string())).collect();
        self.head(error.status, "application/json", &again).await?;
        self.data(&error.body()).await
    }

    pub(crate) async fn refuse(mut self, error: &ApiError) -> Result<(), Gone> {
        self.error(error).await?;
        self.finish(&[]).await
    }

    /// Ends the answer, and waits until it was taken: whoever calls holds a place until then, so that what waits to be read is bounded.
    pub(crate) async fn finish(self, trailer: &[(String, String)]) -> Result<(), Gone> {
        let Self { sealer, frames, .. } = self;
        let sealed = sealer.finish(trailer).map_err(|_| Gone)?;
        let _ = frames.send(Frame::Sealed(sealed.into()).encode()).await;
        let _ = frames.reserve_many(frames.max_capacity()).await;
        Ok(())
    }

    /// Resolves when nobody reads any more.
    pub(crate) async fn closed(&self) {
        self.frames.closed().await;
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }

    pub(crate) fn body_digest(&self) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(self.digest.clone().finish().as_ref());
        Digest(out)
    }
}

/// A connection that fails when the other side takes nothing for some time: what waits to be written does not wait for ever.
pub struct Impatient<S> {
    inner: S,
    patience: Duration,
    /// Runs while the other side takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    /// Wraps a connection that may be stalled for so long.
    pub fn new(inner: S, patience: Duration) -> Self {
        Self { inner, patience, stalled: None }
    }

    fn watched<T>(&mut self, written: Poll<std::io::Result<T>>, cx: &mut Context<'_>) -> Poll<std::io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        stalled.as_mut().poll(cx).map(|()| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watched(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.watched(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Where the host comes in: connections that do not wait for ever.
pub struct Door<L>(pub L);

impl<L: axum::serve::Listener> axum::serve::Listener for Door<L> {
    type Io = Impatient<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (connection, address) = self.0.accept().await;
        (Impatient::new(connection, STALLED), address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// More than the kernel takes for a reader that does not read.
    const MUCH: usize = 64 << 20;

    async fn connection(patience: Duration) -> (TcpStream, Impatient<TcpStream>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (theirs, ours) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (theirs.unwrap(), Impatient::new(ours.unwrap().0, patience))
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up() {
        let (_theirs, mut ours) = connection(Duration::from_millis(50)).await;
        let failed = ours.write_all(&vec![0; MUCH]).await.unwrap_err();
        assert_eq!(failed.kind(), std::io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_takes_what_comes_gets_it_all() {
        let (mut theirs, mut ours) = connection(Duration::from_secs(3_600)).await;
        let reading = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut taken = Vec::new();
            theirs.read_to_end(&mut taken).await.unwrap();
            taken.len()
        });
        ours.write_all(&vec![0; MUCH]).await.unwrap();
        drop(ours);
        assert_eq!(reading.await.unwrap(), MUCH);
    }
}
