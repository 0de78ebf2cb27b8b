//! The octets of a session: writes what the machine has, reads what comes, and watches the time, in one poll.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::SESSION_HARD_MAX;
use crate::seam::net::BoxStream;
use crate::smtp::client::{Client, LostBy, State};

/// The read buffer: a burst of replies is one read.
const READ_BUFFER: usize = 16 << 10;

/// Slices of one vectored write.
const SLICES_MAX: usize = 32;

/// The stream of a session with its buffer and its only timer.
pub(super) struct Io {
    stream: BoxStream,
    buffer: Box<[u8]>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires; it is moved when it fires, or when something is due sooner.
    armed: Instant,
    /// When something moved last: a whole reply came, or octets went out. A reply that drips is no progress.
    progress: Instant,
    hard_end: Instant,
    unflushed: bool,
}

impl Io {
    pub(super) fn new(stream: BoxStream) -> Self {
        let now = Instant::now();
        let armed = now + State::Greeting.timeout();
        Self {
            stream,
            buffer: vec![0; READ_BUFFER].into(),
            timer: Box::pin(tokio::time::sleep_until(armed)),
            armed,
            progress: now,
            hard_end: now + SESSION_HARD_MAX,
            unflushed: false,
        }
    }

    /// Gives the stream away for the TLS handshake; whatever replaces it is set by [`Io::set_stream`].
    pub(super) fn take_stream(&mut self) -> BoxStream {
        std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()))
    }

    pub(super) fn set_stream(&mut self, stream: BoxStream) {
        self.stream = stream;
        self.moved();
    }

    /// Something moved: the time of the state begins anew.
    pub(super) fn moved(&mut self) {
        self.progress = Instant::now();
    }

    /// How long the session lasts already.
    pub(super) fn age(&self) -> Duration {
        SESSION_HARD_MAX.saturating_sub(self.hard_end.saturating_duration_since(Instant::now()))
    }

    /// Writes, reads, watches the time. Ready when the machine got something, or the connection is lost.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        idle: Duration,
    ) -> Poll<Result<(), LostBy>> {
        let write_error = match self.poll_write(cx, client) {
            Poll::Ready(Err(error)) => Some(error),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        };
        // A peer that refuses and closes may leave a reply behind a broken pipe: it is read before the loss is told.
        match self.poll_read(cx, client) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(lost)) => return Poll::Ready(Err(lost)),
            Poll::Pending => {}
        }
        if let Some(error) = write_error {
            return Poll::Ready(Err(error));
        }
        ready!(self.poll_timer(cx, client, idle));
        Poll::Ready(Err(LostBy::Timeout))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, client: &mut Client) -> Poll<Result<(), LostBy>> {
        while !client.output().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = client.output().fill(&mut slices);
            match ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count])) {
                Ok(0) => return Poll::Ready(Err(LostBy::Closed)),
                Ok(n) => client.wrote(n),
                Err(error) => return Poll::Ready(Err(LostBy::Network(error.to_string()))),
            }
            self.unflushed = true;
            self.progress = Instant::now();
        }
        if self.unflushed {
            match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                Ok(()) => self.unflushed = false,
                Err(error) => return Poll::Ready(Err(LostBy::Network(error.to_string()))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, client: &mut Client) -> Poll<Result<(), LostBy>> {
        loop {
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => return Poll::Ready(Err(LostBy::Closed)),
                Ok(()) => {
                    let replies = client.input(buffer.filled());
                    if replies > 0 {
                        self.progress = Instant::now();
                    }
                    if replies > 0 || client.is_closed() {
                        return Poll::Ready(Ok(()));
                    }
                }
                // A TLS peer that closes without saying so: the same to us, since replies have their own end.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Err(LostBy::Closed));
                }
                Err(error) => return Poll::Ready(Err(LostBy::Network(error.to_string()))),
            }
        }
    }

    /// Ready when the state's time is over.
    fn poll_timer(&mut self, cx: &mut Context<'_>, client: &Client, idle: Duration) -> Poll<()> {
        let state = client.state();
        let patience = if state == State::Idle { idle } else { state.timeout() };
        let due = (self.progress + patience).min(self.hard_end);
        if due < self.armed {
            self.armed = due;
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.armed = due;
            self.timer.as_mut().reset(due);
        }
    }
}
