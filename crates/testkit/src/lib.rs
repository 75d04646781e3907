//! Dev-only: downstreams, upstreams, scrapes and sinks on loopback.
