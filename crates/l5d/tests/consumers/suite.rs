//! What the cases share: the consumers that run, and the l5d processes that several of them read.

use std::cell::OnceCell;

use crate::browser::Browser;
use crate::influxdb::InfluxDb;
use crate::l5d::{Hostile, Mesh};
use crate::nginx::Nginx;
use crate::prometheus::Prometheus;
use crate::prometheus3::Prometheus3;
use crate::pushgateway::Pushgateway;
use crate::statsd::StatsdServer;
use crate::zipkin::Zipkin;

/// Everything that was started so far. Each field is made when it is first asked for and stopped when this is dropped.
///
/// Fields are dropped in order: the readers stop before those that they read.
#[derive(Default)]
pub(crate) struct Suite {
    browser: OnceCell<Browser>,
    prometheus: OnceCell<Prometheus>,
    prometheus3: OnceCell<Prometheus3>,
    pushgateway: OnceCell<Pushgateway>,
    influxdb: OnceCell<InfluxDb>,
    statsd: OnceCell<StatsdServer>,
    nginx: OnceCell<Nginx>,
    zipkin: OnceCell<Zipkin>,
    mesh: OnceCell<Mesh>,
    hostile: OnceCell<Hostile>,
}

impl Suite {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Prometheus with the README's job, scraping the three processes of [`mesh`](Self::mesh), and the hostile one.
    pub(crate) fn prometheus(&self) -> &Prometheus {
        self.prometheus.get_or_init(|| Prometheus::start(self.mesh(), self.hostile()))
    }

    /// Chromium with one window, which each case takes as it finds it.
    pub(crate) fn browser(&self) -> &Browser {
        self.browser.get_or_init(Browser::start)
    }

    /// Prometheus 3, scraping the same processes, both faces in every format.
    pub(crate) fn prometheus3(&self) -> &Prometheus3 {
        self.prometheus3.get_or_init(|| Prometheus3::start(self.mesh(), self.hostile()))
    }

    pub(crate) fn pushgateway(&self) -> &Pushgateway {
        self.pushgateway.get_or_init(Pushgateway::start)
    }

    pub(crate) fn influxdb(&self) -> &InfluxDb {
        self.influxdb.get_or_init(InfluxDb::start)
    }

    pub(crate) fn statsd(&self) -> &StatsdServer {
        self.statsd.get_or_init(StatsdServer::start)
    }

    pub(crate) fn nginx(&self) -> &Nginx {
        self.nginx.get_or_init(Nginx::start)
    }

    /// A Zipkin server with its Scribe collector.
    pub(crate) fn zipkin(&self) -> &Zipkin {
        self.zipkin.get_or_init(Zipkin::start)
    }

    /// Three l5d processes that have had their traffic.
    pub(crate) fn mesh(&self) -> &Mesh {
        self.mesh.get_or_init(Mesh::start)
    }

    /// One l5d process whose names are as bad as names can be.
    pub(crate) fn hostile(&self) -> &Hostile {
        self.hostile.get_or_init(Hostile::start)
    }
}
