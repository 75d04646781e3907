//! The body of an answer on its way out.
//!
//! A page is pulled: hyper asks for the next piece when the last one has gone, so a reader that stops reading holds one
//! piece, and the page is asked for nothing more until it reads on. Between two pieces the task steps back for the others of
//! its thread. A page that fits into one piece is sent with its length, like any other answer.

use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Frame, SizeHint};
use l5d_telemetry::Page;
use tokio::time::Instant;

use crate::stats::Stats;

/// A little more than what a page fills in at once, so that the buffer seldom grows.
const PIECE: usize = 72 * 1024;

/// A body that hyper can send. Whatever `busy` is lives as long as the body does.
pub(crate) struct SentBody {
    source: Source,
    _busy: Box<dyn Send>,
}

enum Source {
    Full(Bytes),
    Page(Streamed),
    Done,
}

impl SentBody {
    /// A body whose length is known.
    pub(crate) fn full(bytes: Bytes, busy: impl Send + 'static) -> Self {
        Self { source: Source::Full(bytes), _busy: Box::new(busy) }
    }

    /// A page; what fits into its first piece is a full body.
    pub(crate) fn page(mut page: Box<dyn Page>, gzip: bool, stats: &Arc<Stats>, busy: impl Send + 'static) -> Self {
        let mut first = Vec::with_capacity(PIECE);
        if !page.fill(&mut first) {
            return Self::full(if gzip { gzipped(&first) } else { first.into() }, busy);
        }
        let stats = Arc::clone(stats);
        stats.response_stream.opened.incr();
        stats.response_stream.pending.incr();
        let streamed = Streamed {
            page,
            first: Some(first),
            gzip: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
            stepped_back: false,
            ended: false,
            stats,
            opened: Instant::now(),
        };
        Self { source: Source::Page(streamed), _busy: Box::new(busy) }
    }
}

/// All of it as one gzip member. The fast level: pages are repetitive, and the reader waits.
pub(crate) fn gzipped(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail").into()
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match &mut this.source {
            Source::Done => Poll::Ready(None),
            Source::Full(bytes) => {
                let bytes = mem::take(bytes);
                this.source = Source::Done;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Page(streamed) => {
                let polled = streamed.poll_piece(cx);
                if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    this.source = Source::Done;
                }
                polled.map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_empty(),
            Source::Page(_) => false,
            Source::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Page(_) => SizeHint::default(),
            Source::Done => SizeHint::with_exact(0),
        }
    }
}

/// A page of more than one piece.
struct Streamed {
    page: Box<dyn Page>,
    first: Option<Vec<u8>>,
    gzip: Option<GzEncoder<Vec<u8>>>,
    stepped_back: bool,
    ended: bool,
    stats: Arc<Stats>,
    opened: Instant,
}

impl Streamed {
    fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(first) => first,
            None => {
                if !self.stepped_back {
                    // Others first. hyper sends what it has meanwhile.
                    self.stepped_back = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.stepped_back = false;
                let mut piece = Vec::with_capacity(PIECE);
                self.ended = !self.page.fill(&mut piece);
                piece
            }
        };
        let piece = match self.compressed(piece) {
            Ok(piece) => piece,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        if piece.is_empty() {
            // The page had nothing more after all, or the compressor keeps what it got for the next piece.
            return match self.ended {
                true => Poll::Ready(None),
                false => {
                    cx.waker().wake_by_ref();
                    self.stepped_back = true;
                    Poll::Pending
                }
            };
        }
        self.stats.response_stream.chunk_payload_bytes.add(piece.len() as u64);
        Poll::Ready(Some(Ok(piece.into())))
    }

    fn compressed(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        match &mut self.gzip {
            None => Ok(piece),
            Some(gzip) => {
                gzip.write_all(&piece)?;
                if self.ended {
                    gzip.try_finish()?;
                }
                Ok(mem::take(gzip.get_mut()))
            }
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        let stats = &self.stats.response_stream;
        stats.closed.incr();
        stats.pending.decr();
        stats.duration_ms.add(self.opened.elapsed().as_millis() as u64);
    }
}
