//! The threads of the process, in one place.
//!
//! One worker thread per core, each a current-thread runtime with its own accept loop, connections and idle connections
//! to endpoints: nothing that a request does moves to another core. One control thread (the main one) for namers, caches,
//! telemeters, the snapshot clock and signals, and one thread for the admin server, so that a scrape of any size costs
//! no worker a moment. All servers' listening sockets are bound once and shared by the workers, so that a second process
//! on the same address fails at its start.

use std::{io, net::TcpListener, sync::Arc, thread::JoinHandle, time::Duration};

use l5d_http::HttpServer;
use l5d_net::Drain;
use l5d_router::clock;
use l5d_telemetry::MetricsTree;

use crate::alloc::{KeepsBlocks, give_back_unused};

/// A server with its listening socket.
pub(crate) struct Listening {
    pub(crate) server: Arc<HttpServer>,
    pub(crate) listener: TcpListener,
}

/// The worker threads.
pub(crate) struct Workers(Vec<JoinHandle<()>>);

impl Workers {
    /// Starts `count` workers that serve all of `servers` until the drain has ended.
    ///
    /// # Errors
    /// When a thread, a runtime or a copy of a socket cannot be had.
    pub(crate) fn start(count: usize, servers: &[Listening], tree: &MetricsTree, drain: &Drain) -> io::Result<Self> {
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let servers: Vec<_> = servers
                .iter()
                .map(|s| Ok((Arc::clone(&s.server), s.listener.try_clone()?)))
                .collect::<io::Result<_>>()?;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().on_thread_unpark(clock::forget).build()?;
            let (tree, drain) = (tree.clone(), drain.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _blocks = KeepsBlocks::enter();
                let _cells = tree.enter_worker();
                l5d_router::worker::enter(index, count);
                clock::enter();
                runtime.block_on(serve(servers, drain));
            })?;
            threads.push(thread);
        }
        Ok(Self(threads))
    }

    /// Waits until every worker has ended, which the drain makes them do.
    pub(crate) fn join(self) {
        for thread in self.0 {
            let _ = thread.join(); // a panic has been reported where it happened
        }
    }
}

async fn serve(servers: Vec<(Arc<HttpServer>, TcpListener)>, drain: Drain) {
    let mut tasks = tokio::task::JoinSet::new();
    for (server, listener) in servers {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                tasks.spawn(server.serve(listener, drain.clone()));
            }
            Err(error) => tracing::error!(server = %server.label(), %error, "this worker cannot serve"),
        }
    }
    drop(drain);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = tasks.join_next() => if ended.is_none() { return },
            _ = second.tick() => give_back_unused(),
        }
    }
}
