//! What the configuration says of one logical or bound name, put together: the entries that match it, later over earlier,
//! and the defaults beneath. Made when a stack is built; nothing here runs per request.

use std::{sync::Arc, time::Duration};

use l5d_naming::{Path, PathMatcher};
use l5d_net::{ClientTls, ClientTlsConfig, SocketOptions};
use l5d_router::{
    accrual, balance,
    config::{HostConnectionPoolConfig, RetryBudgetConfig, SessionConfig},
    retry::Backoff,
};

use crate::{
    classifiers::{self, Classifier},
    config::{ClientConfig, ClientTlsSetting, PerName, ServiceConfig},
};

/// What applies to a logical name.
#[derive(Debug)]
pub(crate) struct ServiceSettings {
    pub(crate) total_timeout: Option<Duration>,
    pub(crate) budget: RetryBudgetConfig,
    pub(crate) backoff: Backoff,
    pub(crate) classifier: Arc<dyn Classifier>,
}

/// What applies to a bound name.
#[derive(Debug)]
pub(crate) struct ClientSettings {
    pub(crate) load_balancer: balance::Settings,
    pub(crate) accrual: accrual::Kind,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) requeue_budget: RetryBudgetConfig,
    pub(crate) pool: HostConnectionPoolConfig,
    pub(crate) session: SessionConfig,
    pub(crate) fail_fast: bool,
    pub(crate) tls: Option<Result<Arc<ClientTls>, String>>,
    pub(crate) socket_options: SocketOptions,
    pub(crate) forward_client_cert: bool,
}

/// `service`: settings by logical name.
#[derive(Debug)]
pub(crate) struct ServiceRules {
    entries: Vec<ServiceEntry>,
}

/// Which names, what is said of them, and the classifier that is part of it.
type ServiceEntry = (Option<PathMatcher>, ServiceConfig, Option<Arc<dyn Classifier>>);

impl ServiceRules {
    /// The entries with the classifier of each, in their order.
    pub(crate) fn new(config: &PerName<ServiceConfig>, classifiers: Vec<Option<Arc<dyn Classifier>>>) -> Self {
        let classifiers = classifiers.into_iter().chain(std::iter::repeat(None));
        let entries = entries(config).zip(classifiers).map(|((m, config), c)| (m, config.clone(), c)).collect();
        Self { entries }
    }

    /// What applies to `name`.
    pub(crate) fn settings(&self, name: &Path) -> ServiceSettings {
        let mut merged = ServiceConfig::default();
        let mut classifier = None;
        for (matcher, config, own) in &self.entries {
            if matcher.as_ref().is_none_or(|m| m.matches(name)) {
                merged.overlay(config);
                classifier = own.clone().or(classifier);
            }
        }
        ServiceSettings {
            total_timeout: merged.total_timeout.and_then(|t| t.0),
            budget: merged.retries.budget.unwrap_or_default(),
            backoff: merged.retries.backoff.as_ref().map_or(Backoff::NONE, Backoff::from),
            classifier: classifier.unwrap_or_else(classifiers::default),
        }
    }
}

/// `client`: settings by bound name.
#[derive(Debug)]
pub(crate) struct ClientRules {
    entries: Vec<(Option<PathMatcher>, ClientConfig)>,
}

impl ClientRules {
    pub(crate) fn new(config: &PerName<ClientConfig>) -> Self {
        Self { entries: entries(config).map(|(matcher, config)| (matcher, config.clone())).collect() }
    }

    /// What applies to the client of `id`.
    pub(crate) fn settings(&self, id: &Path) -> ClientSettings {
        let mut merged = ClientConfig::default();
        let mut tls: Option<ClientTlsConfig> = None;
        for (matcher, config) in &self.entries {
            let vars = match matcher {
                None => None,
                Some(matcher) => match matcher.extract(id) {
                    Some(vars) => Some(vars),
                    None => continue,
                },
            };
            merged.overlay(config);
            match &config.tls {
                None => {}
                Some(ClientTlsSetting::Plaintext) => tls = None,
                Some(ClientTlsSetting::Tls(own)) => {
                    let mut own = own.clone();
                    if let (Some(name), Some(vars)) = (&mut own.common_name, vars) {
                        *name = vars.substitute(name);
                    }
                    tls = Some(own);
                }
            }
        }
        ClientSettings {
            load_balancer: balance::Settings::from(&merged.load_balancer.unwrap_or_default()),
            accrual: accrual::Kind::from(&merged.failure_accrual.unwrap_or_default()),
            attempt_timeout: merged.request_attempt_timeout.and_then(|t| t.0),
            requeue_budget: merged.requeue_budget.unwrap_or_default(),
            pool: merged.host_connection_pool.unwrap_or_default(),
            session: merged.client_session.unwrap_or_default(),
            fail_fast: merged.fail_fast.unwrap_or(false),
            tls: tls.map(|config| ClientTls::new(config).map(Arc::new).map_err(|e| e.to_string())),
            socket_options: merged.socket_options.unwrap_or_default(),
            forward_client_cert: merged.forward_client_cert.unwrap_or(false),
        }
    }
}

fn entries<T>(config: &PerName<T>) -> impl Iterator<Item = (Option<PathMatcher>, &T)> {
    let (global, prefixed) = match config {
        PerName::Global(settings) => (Some((None, settings)), &[][..]),
        PerName::Static(configs) => (None, &configs[..]),
    };
    global.into_iter().chain(prefixed.iter().map(|p| (Some(PathMatcher::new(&p.prefix)), &p.settings)))
}
