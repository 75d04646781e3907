//! A client's end of a connection: a request goes in, and the head and body of its response come out.
//!
//! Nothing drives it but whoever uses it. While it is idle its owner asks [`Wire::poll_idle`] whether it still is.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Method, Version};
use tokio::io::AsyncWrite;

use super::{
    Headers,
    framing::Decoder,
    headers::{Present, push_length},
    input::{Input, NoHead},
    message::RequestHead,
    output::{Sending, WriteError},
    parse::{self, Framing, Length, ResponseHead},
};
use crate::{body::Body, headers::CONTENT_LENGTH, io::CountedIo};

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct Wire {
    input: Input,
    header_bytes: usize,
    /// Whether another request may be sent when this exchange has ended.
    keep_alive: bool,
}

/// An exchange that has begun: what is still to be sent, and what the response needs to be read.
#[derive(Debug)]
pub(crate) struct Exchange {
    method: Method,
    sending: Option<Sending>,
    /// Whether anything has been written.
    is_begun: bool,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// Nothing of the request could be written.
    Unsent,
    /// The request's body broke off.
    Body,
    /// What came is no response.
    Response(String),
    /// The connection ended.
    Closed(io::Error),
}

impl Exchange {
    /// Of a request with this head, but for its lines, which are `headers`.
    pub(crate) fn new(head: &RequestHead, headers: &Headers, body: Body) -> Self {
        let short = body.as_full().map_or(0, Bytes::len).min(1024);
        let mut text = Vec::with_capacity(headers.wire_len() + head.target.as_str().len() + short + 64);
        text.extend_from_slice(head.method.as_str().as_bytes());
        text.push(b' ');
        text.extend_from_slice(head.target.as_str().as_bytes());
        text.extend_from_slice(if head.version == Version::HTTP_10 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
        headers.encode(&mut text);
        let mut length = Length::NONE;
        if !(headers.present().has(Present::CONTENT_LENGTH) && headers.contains(CONTENT_LENGTH)) {
            match body.as_full() {
                None => {
                    length = Length::Chunked;
                    text.extend_from_slice(b"transfer-encoding: chunked\r\n");
                }
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => push_length(&mut text, bytes.len()),
            }
        }
        text.extend_from_slice(b"\r\n");
        Self { method: head.method.clone(), sending: Some(Sending::new(text, body, length)), is_begun: false }
    }

    /// Goes on with what is still to be sent.
    fn poll_sending(&mut self, io: &mut CountedIo, cx: &mut Context<'_>) -> Result<(), WriteError> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let before = io.sent();
        let polled = sending.poll(cx, |output, cx| output.poll_flush(io, cx));
        self.is_begun |= io.sent() != before;
        match polled {
            Poll::Pending => Ok(()),
            Poll::Ready(result) => {
                self.sending = None;
                result
            }
        }
    }

    /// Whether the request has been sent as a whole.
    pub(crate) fn is_sent(&self) -> bool {
        self.sending.is_none()
    }
}

impl Wire {
    pub(crate) fn new(io: CountedIo, header_bytes: usize) -> Self {
        Self { input: Input::new(io), header_bytes, keep_alive: true }
    }

    /// Whether the connection can be used, as far as is known without waiting for it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.input.is_empty() && self.input.io.is_quiet()
    }

    /// Whether the connection can be used: ready when it has ended, or the peer has said what nobody asked for.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.input.is_empty() {
            return Poll::Ready(());
        }
        self.input.poll_ahead(cx).map(|_| ())
    }

    /// Whether another exchange may follow on this connection.
    pub(crate) fn is_reusable(&self) -> bool {
        self.keep_alive
    }

    /// Sends the request and reads the head of its response; the body of either may not be over then.
    pub(crate) fn poll_response(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(ResponseHead, Length), ExchangeError>> {
        match exchange.poll_sending(&mut self.input.io, cx) {
            Ok(()) => {}
            Err(WriteError::Body) => return Poll::Ready(Err(ExchangeError::Body)),
            // An endpoint that takes no more may have said why.
            Err(WriteError::Io(e)) => {
                self.keep_alive = false;
                if !exchange.is_begun {
                    return Poll::Ready(Err(ExchangeError::Unsent));
                }
                if let Poll::Ready(Ok(response)) = self.poll_head(&exchange.method, cx) {
                    return Poll::Ready(Ok(response));
                }
                return Poll::Ready(Err(ExchangeError::Closed(e)));
            }
        }
        self.poll_head(&exchange.method, cx)
    }

    fn poll_head(
        &mut self,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(ResponseHead, Length), ExchangeError>> {
        loop {
            let header_bytes = self.header_bytes;
            let head = self.input.poll_head(cx, |bytes, _| {
                let parsed = parse::response(bytes, method, header_bytes)?;
                Ok(parsed.map(|(head, framing, used)| ((head, framing), used)))
            });
            let (head, framing) = ready!(head).map_err(|e| match e {
                NoHead::Closed(e) => self.closed(e),
                NoHead::Bad(what) => self.malformed(what),
            })?;
            if let Some(response) = self.begin(head, framing)? {
                return Poll::Ready(Ok(response));
            }
        }
    }

    /// A final response begins; what is only on the way is passed over (RFC 9110 §15.2).
    fn begin(&mut self, head: ResponseHead, framing: Framing) -> Result<Option<(ResponseHead, Length)>, ExchangeError> {
        if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(
                self.malformed("the endpoint switches to another protocol, which it was not asked to".to_owned())
            );
        }
        if head.status.is_informational() {
            return Ok(None);
        }
        self.keep_alive &= framing.keep_alive;
        Ok(Some((head, framing.length)))
    }

    fn malformed(&mut self, what: String) -> ExchangeError {
        self.keep_alive = false;
        ExchangeError::Response(what)
    }

    fn closed(&mut self, e: io::Error) -> ExchangeError {
        self.keep_alive = false;
        ExchangeError::Closed(e)
    }

    /// The next piece of the response's body; the rest of the request goes on meanwhile.
    pub(crate) fn poll_data(
        &mut self,
        decoder: &mut Decoder,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        self.poll_upload(exchange, cx);
        let polled = self.input.poll_data(decoder, cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.keep_alive = false;
        }
        polled
    }

    /// Goes on with what is left of the request; a connection that does not take it is not used again.
    pub(crate) fn poll_upload(&mut self, exchange: &mut Exchange, cx: &mut Context<'_>) {
        if exchange.poll_sending(&mut self.input.io, cx).is_err() {
            self.keep_alive = false;
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // TLS tells its peer that it ends, if that can be done at once.
        if self.input.io.is_tls() {
            let _ = Pin::new(&mut self.input.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}
