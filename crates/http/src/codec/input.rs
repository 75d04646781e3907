//! What comes in on a connection, of either end: heads first, and then the pieces of a body.
//!
//! A piece is read to the stack. A head that is there as a whole is read from it at once, and only what has to wait is kept:
//! an idle connection has no buffer.

use std::{
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::framing::{BadChunk, Decoder, Step};
use crate::io::CountedIo;

/// A head is read by pieces of this length.
const HEAD_PIECE: usize = 8 * 1024;
/// A body is read by pieces of at most this length.
const BODY_PIECE: usize = 120 * 1024;

/// A connection, and what has come on it and not been used.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) io: CountedIo,
    bytes: BytesMut,
    /// So much of it is no head yet.
    tried: usize,
}

/// Why there is no head.
pub(super) enum NoHead<E> {
    /// The connection ended.
    Closed(io::Error),
    /// What came is none. It stays.
    Bad(E),
}

impl Input {
    pub(super) fn new(io: CountedIo) -> Self {
        Self { io, bytes: BytesMut::new(), tried: 0 }
    }

    /// Whether nothing waits to be used.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Gives away what waits.
    pub(super) fn take(&mut self) -> BytesMut {
        self.tried = 0;
        std::mem::take(&mut self.bytes)
    }

    /// The next head. `read` finds it at the beginning of what has come, if it is there as a whole, and tells its length; it
    /// is given how much of that it has seen already.
    pub(super) fn poll_head<T, E>(
        &mut self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&[u8], usize) -> Result<Option<(T, usize)>, E>,
    ) -> Poll<Result<T, NoHead<E>>> {
        loop {
            if self.bytes.len() > self.tried {
                match read(&self.bytes, self.tried) {
                    Ok(Some((head, used))) => {
                        self.bytes.advance(used);
                        self.tried = 0;
                        if self.bytes.is_empty() {
                            self.bytes = BytesMut::new();
                        }
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) => self.tried = self.bytes.len(),
                    Err(e) => return Poll::Ready(Err(NoHead::Bad(e))),
                }
            }
            let Self { io, bytes, tried } = self;
            let piece = poll_piece(io, cx, |piece| {
                if piece.is_empty() {
                    return Err(NoHead::Closed(io::ErrorKind::UnexpectedEof.into()));
                }
                if !bytes.is_empty() {
                    bytes.extend_from_slice(piece);
                    return Ok(None);
                }
                let found = read(piece, 0);
                let used = found.as_ref().ok().and_then(|head| head.as_ref()).map_or(0, |(_, used)| *used);
                bytes.extend_from_slice(&piece[used..]);
                match found {
                    Ok(Some((head, _))) => Ok(Some(head)),
                    Ok(None) => {
                        *tried = bytes.len();
                        Ok(None)
                    }
                    Err(e) => Err(NoHead::Bad(e)),
                }
            });
            match ready!(piece) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(head))) => return Poll::Ready(Ok(head)),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(e) => return Poll::Ready(Err(NoHead::Closed(e))),
            }
        }
    }

    /// The next piece of the body that `decoder` knows.
    pub(super) fn poll_data(&mut self, decoder: &mut Decoder, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match decoder.decode(&mut self.bytes) {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Step::End) => return Poll::Ready(None),
                Err(BadChunk) => {
                    return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk has no size"))));
                }
                Ok(Step::More) => {}
            }
            match ready!(self.poll_more(decoder.wanted(BODY_PIECE), cx)) {
                Ok(0) if decoder.ends_with_connection() => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(e) => return Poll::Ready(Some(Err(e))),
            }
        }
    }

    /// Passes over what has come of a body.
    pub(super) fn skip(&mut self, decoder: &mut Decoder) {
        while matches!(decoder.decode(&mut self.bytes), Ok(Step::Data(_))) {}
    }

    /// Reads more of a body, of which `wanted` bytes may come.
    fn poll_more(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { io, bytes, .. } = self;
        if bytes.capacity() - bytes.len() < wanted.min(BODY_PIECE / 4) {
            bytes.reserve(wanted);
        }
        let read = pin!(io.read_buf(bytes)).poll(cx);
        if read.is_pending() && bytes.is_empty() {
            *bytes = BytesMut::new(); // whoever waits keeps no buffer
        }
        read
    }

    /// Reads a piece that waits to be used, and tells its length: 0 at the end of the connection.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { io, bytes, .. } = self;
        poll_piece(io, cx, |piece| {
            bytes.extend_from_slice(piece);
            piece.len()
        })
    }

    /// Takes what comes and forgets it, `left` bytes at most. Ready at the end of the connection, too.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        self.take();
        loop {
            let length = ready!(poll_piece(&mut self.io, cx, <[u8]>::len)).unwrap_or(0);
            *left = left.saturating_sub(length);
            if length == 0 || *left == 0 {
                return Poll::Ready(());
            }
        }
    }
}

/// Reads to the stack, and gives what has come to `take`: nothing at the end of the connection.
fn poll_piece<T>(io: &mut CountedIo, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
    let mut place = [const { MaybeUninit::uninit() }; HEAD_PIECE];
    let mut piece = ReadBuf::uninit(&mut place);
    ready!(Pin::new(io).poll_read(cx, &mut piece))?;
    Poll::Ready(Ok(take(piece.filled())))
}
