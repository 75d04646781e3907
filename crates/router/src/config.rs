//! The settings that routers of every protocol share, as plain data, with the reading of each.
//!
//! What a setting does lives with the part it belongs to (balancers, accrual, pools); nothing here acts. Every check that
//! Linkerd made when a client or path was first used is made here, at load. Each struct's `Default` is what applies when
//! the section is absent; the same value per key applies when the section is there and the key isn't.

use std::{num::NonZeroUsize, time::Duration};

use l5d_config::{Cx, Fields, FromNode, Kind, Millis, Node, Secs, parse_kind};

/// `retries` of a service. Each part is kept apart, because a later matching `configs` entry replaces only what it names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetriesConfig {
    /// `budget`; [`RetryBudgetConfig::default`] when no entry names one.
    pub budget: Option<RetryBudgetConfig>,
    /// `backoff`; [`BackoffConfig::default`] when no entry names one.
    pub backoff: Option<BackoffConfig>,
}

/// `retries.budget` and `requeueBudget`: how many retries may be spent. With both rates at 0 nothing is ever retried.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudgetConfig {
    /// `ttlSecs`, 1 to 60, default 10: how long a request's deposit may be spent.
    pub ttl: Duration,
    /// `minRetriesPerSec`, default 10: what may be spent without any deposit.
    pub min_retries_per_sec: u32,
    /// `percentCanRetry`, 0 to 1000, default 0.2: retries per request, as a ratio (0.2 is 20 %).
    pub percent_can_retry: f64,
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(10), min_retries_per_sec: 10, percent_can_retry: 0.2 }
    }
}

/// `backoff`: the pauses between attempts, or between revivals of a dead endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum BackoffConfig {
    /// `kind: constant`: always `ms`, default 0.
    Constant(Duration),
    /// `kind: jittered`: decorrelated jitter, each pause drawn between `min` and three times the one before, at most `max`.
    Jittered {
        /// `minMs`, required, more than 0.
        min: Duration,
        /// `maxMs`, required, at least `minMs`.
        max: Duration,
    },
    /// Finagle's equal jitter: half of a doubling step for sure, half at random. No kind asks for it; it is what failure
    /// accrual does by default.
    EqualJittered {
        /// The first step.
        min: Duration,
        /// The largest step.
        max: Duration,
    },
}

/// Retries don't wait unless told to.
impl Default for BackoffConfig {
    fn default() -> Self {
        Self::Constant(Duration::ZERO)
    }
}

/// `loadBalancer`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancerConfig {
    /// `kind` with its keys, default p2c.
    pub balancer: BalancerConfig,
    /// `enableProbation`, default false: addresses that a namer took away stay while they are healthy.
    pub enable_probation: bool,
}

impl Default for LoadBalancerConfig {
    fn default() -> Self {
        Self { balancer: BalancerConfig::P2c { max_effort: DEFAULT_MAX_EFFORT }, enable_probation: false }
    }
}

/// The kinds of load balancers with their keys.
#[derive(Clone, Debug, PartialEq)]
pub enum BalancerConfig {
    /// `p2c`: the less loaded of two endpoints drawn at random, load being requests in flight.
    P2c {
        /// `maxEffort`, default 5: how many picks may be wasted on endpoints that are not open.
        max_effort: u32,
    },
    /// `ewma`: as p2c, load being a peak-sensitive moving average of round-trip times.
    Ewma {
        /// `maxEffort`, default 5.
        max_effort: u32,
        /// `decayTimeMs`, default 10 s: the window of the average.
        decay_time: Duration,
    },
    /// `aperture`: p2c over a subset whose size follows the load.
    Aperture {
        /// `maxEffort`, default 5.
        max_effort: u32,
        /// `smoothWindowMs`, default 5 s: the window over which load is averaged.
        smooth_window: Duration,
        /// `lowLoad`, default 0.5: below it the aperture narrows.
        low_load: f64,
        /// `highLoad`, default 2.0: above it the aperture widens.
        high_load: f64,
        /// `minAperture`, default 1, more than 0.
        min_aperture: u32,
    },
    /// `heap`: the least loaded of all endpoints.
    Heap,
    /// `roundRobin`: one after the other.
    RoundRobin {
        /// `maxEffort`, default 5.
        max_effort: u32,
    },
}

const DEFAULT_MAX_EFFORT: u32 = 5;

/// `failureAccrual`.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureAccrualConfig {
    /// `kind` with its keys, default 5 consecutive failures.
    pub policy: AccrualPolicyConfig,
    /// `backoff`, how long an endpoint is left alone after each death; default equal jitter from 5 s to 300 s. `none`
    /// accepts and ignores it.
    pub backoff: BackoffConfig,
}

impl Default for FailureAccrualConfig {
    fn default() -> Self {
        Self { policy: AccrualPolicyConfig::ConsecutiveFailures { failures: 5 }, backoff: Self::default_backoff() }
    }
}

impl FailureAccrualConfig {
    /// What applies when a section has no `backoff`.
    pub fn default_backoff() -> BackoffConfig {
        BackoffConfig::EqualJittered { min: Duration::from_secs(5), max: Duration::from_secs(300) }
    }
}

/// The kinds of failure accrual with their keys.
#[derive(Clone, Debug, PartialEq)]
pub enum AccrualPolicyConfig {
    /// `none`: endpoints never die.
    None,
    /// `io.l5d.consecutiveFailures`.
    ConsecutiveFailures {
        /// `failures`, required: that many in a row kill. 0 and 1 are the same.
        failures: u32,
    },
    /// `io.l5d.successRate`: the rate over a number of requests.
    SuccessRate {
        /// `successRate`, required, 0 to 1: below it the endpoint dies.
        success_rate: f64,
        /// `requests`, required, more than 0.
        requests: u32,
    },
    /// `io.l5d.successRateWindowed`: the rate over a time.
    SuccessRateWindowed {
        /// `successRate`, required, 0 to 1: below it the endpoint dies.
        success_rate: f64,
        /// `window`, whole seconds, required, more than 0.
        window: Duration,
    },
}

/// `bindingCache`: how many names, trees, bound names and clients are kept ready, and for how long unused.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingCacheConfig {
    /// `paths`, default 1000.
    pub paths: NonZeroUsize,
    /// `trees`, default 1000.
    pub trees: NonZeroUsize,
    /// `bounds`, default 1000.
    pub bounds: NonZeroUsize,
    /// `clients`, default 1000.
    pub clients: NonZeroUsize,
    /// `idleTtlSecs`, default 10 minutes.
    pub idle_ttl: Duration,
}

impl Default for BindingCacheConfig {
    fn default() -> Self {
        let size = const { NonZeroUsize::new(1000).expect("1000 isn't 0") };
        Self { paths: size, trees: size, bounds: size, clients: size, idle_ttl: Duration::from_secs(600) }
    }
}

/// `hostConnectionPool`: the connections to one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostConnectionPoolConfig {
    /// `minSize`, default 0: connections that are kept however idle.
    pub min_size: u32,
    /// `maxSize`, default none: more requests than that wait. At least 1 and at least `minSize`.
    pub max_size: Option<u32>,
    /// `idleTimeMs`, default none: how long a connection above `minSize` is kept idle.
    pub idle_time: Option<Duration>,
    /// `maxWaiters`, default none: more waiting requests than that fail.
    pub max_waiters: Option<u32>,
}

/// `clientSession` and `serverSession`: how long a connection lives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionConfig {
    /// `idleTimeMs`, default none: closed after so long without a request in flight.
    pub idle_time: Option<Duration>,
    /// `lifeTimeMs`, default none: closed at that age, once idle.
    pub life_time: Option<Duration>,
}

impl FromNode for RetriesConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let retries = Self { budget: fields.optional("budget", cx), backoff: fields.optional("backoff", cx) };
        fields.finish(cx);
        Some(retries)
    }
}

impl FromNode for RetryBudgetConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let default = Self::default();
        let ttl = fields.with("ttlSecs", cx, |node, cx| {
            let secs = i64::from_node(node, cx)?;
            match u64::try_from(secs) {
                Ok(secs @ 1..=60) => Some(Duration::from_secs(secs)),
                _ => wrong(node, cx, format!("ttl must be [1 second, 60 seconds], got {secs}")),
            }
        });
        let min_retries_per_sec = fields.or("minRetriesPerSec", default.min_retries_per_sec, cx);
        let percent_can_retry = fields.with("percentCanRetry", cx, |node, cx| number_in(node, cx, 0.0, 1000.0));
        fields.finish(cx);
        Some(Self {
            ttl: ttl.unwrap_or(default.ttl),
            min_retries_per_sec,
            percent_can_retry: percent_can_retry.unwrap_or(default.percent_can_retry),
        })
    }
}

impl FromNode for BackoffConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        parse_kind("backoff", BACKOFFS, &[], node, cx).map(|(_, backoff)| *backoff)
    }
}

impl FromNode for LoadBalancerConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        parse_kind("balancer", BALANCERS, &[], node, cx).map(|(_, balancer)| *balancer)
    }
}

impl FromNode for FailureAccrualConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        parse_kind("failure accrual", FAILURE_ACCRUALS, &[], node, cx).map(|(_, accrual)| *accrual)
    }
}

impl FromNode for BindingCacheConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let default = Self::default();
        let mut size = |key: &str, default: NonZeroUsize| {
            let size = fields.with(key, cx, positive);
            size.and_then(|size| NonZeroUsize::new(size as usize)).unwrap_or(default)
        };
        let (paths, trees) = (size("paths", default.paths), size("trees", default.trees));
        let (bounds, clients) = (size("bounds", default.bounds), size("clients", default.clients));
        let idle_ttl = fields.or("idleTtlSecs", Secs(default.idle_ttl), cx).0;
        fields.finish(cx);
        Some(Self { paths, trees, bounds, clients, idle_ttl })
    }
}

impl FromNode for HostConnectionPoolConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let pool = Self {
            min_size: fields.or("minSize", 0, cx),
            max_size: fields.with("maxSize", cx, positive),
            idle_time: fields.optional::<Millis>("idleTimeMs", cx).map(|idle| idle.0),
            max_waiters: fields.optional("maxWaiters", cx),
        };
        fields.finish(cx);
        match pool.max_size {
            Some(max) if max < pool.min_size => {
                wrong(node, cx, format!("minSize ({}) is more than maxSize ({max})", pool.min_size))
            }
            _ => Some(pool),
        }
    }
}

impl FromNode for SessionConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let session = Self {
            idle_time: fields.optional::<Millis>("idleTimeMs", cx).map(|idle| idle.0),
            life_time: fields.optional::<Millis>("lifeTimeMs", cx).map(|life| life.0),
        };
        fields.finish(cx);
        Some(session)
    }
}

/// The kinds that `backoff` may name.
pub static BACKOFFS: &[&Kind<BackoffConfig>] = &[
    &Kind {
        id: "constant",
        experimental: false,
        summary: "the same pause every time",
        example: "kind: constant\nms: 100\n",
        parse: |node, cx| {
            with_kind(node, cx, |fields, cx| {
                Some(BackoffConfig::Constant(fields.or("ms", Millis(Duration::ZERO), cx).0))
            })
        },
    },
    &Kind {
        id: "jittered",
        experimental: false,
        summary: "growing pauses, drawn at random",
        example: "kind: jittered\nminMs: 10\nmaxMs: 10000\n",
        parse: |node, cx| {
            with_kind(node, cx, |fields, cx| {
                let min = fields.required_with("minMs", cx, positive_millis);
                let max = fields.required_with("maxMs", cx, positive_millis);
                let (min, max) = (min?, max?);
                if min > max {
                    return wrong(
                        node,
                        cx,
                        format!("minMs ({}) is more than maxMs ({})", min.as_millis(), max.as_millis()),
                    );
                }
                Some(BackoffConfig::Jittered { min, max })
            })
        },
    },
];

/// The kinds that `loadBalancer` may name.
pub static BALANCERS: &[&Kind<LoadBalancerConfig>] = &[
    &Kind {
        id: "p2c",
        experimental: false,
        summary: "the less loaded of two endpoints drawn at random",
        example: "kind: p2c\nmaxEffort: 5\n",
        parse: |node, cx| {
            balancer(node, cx, |fields, cx| Some(BalancerConfig::P2c { max_effort: max_effort(fields, cx) }))
        },
    },
    &Kind {
        id: "ewma",
        experimental: false,
        summary: "the faster of two endpoints drawn at random",
        example: "kind: ewma\nmaxEffort: 5\ndecayTimeMs: 10000\n",
        parse: |node, cx| {
            balancer(node, cx, |fields, cx| {
                Some(BalancerConfig::Ewma {
                    max_effort: max_effort(fields, cx),
                    decay_time: fields.with("decayTimeMs", cx, positive_millis).unwrap_or(Duration::from_secs(10)),
                })
            })
        },
    },
    &Kind {
        id: "aperture",
        experimental: false,
        summary: "p2c over a subset that grows with the load",
        example: "kind: aperture\nsmoothWindowMs: 5000\nlowLoad: 0.5\nhighLoad: 2.0\nminAperture: 1\n",
        parse: |node, cx| {
            balancer(node, cx, |fields, cx| {
                let max_effort = max_effort(fields, cx);
                let smooth_window = fields.with("smoothWindowMs", cx, positive_millis);
                let low_load = fields.with("lowLoad", cx, |node, cx| number_in(node, cx, 0.0, f64::MAX)).unwrap_or(0.5);
                let high_load =
                    fields.with("highLoad", cx, |node, cx| number_in(node, cx, 0.0, f64::MAX)).unwrap_or(2.0);
                let min_aperture = fields.with("minAperture", cx, positive).unwrap_or(1);
                if low_load > high_load {
                    return wrong(node, cx, format!("lowLoad ({low_load}) is more than highLoad ({high_load})"));
                }
                Some(BalancerConfig::Aperture {
                    max_effort,
                    smooth_window: smooth_window.unwrap_or(Duration::from_secs(5)),
                    low_load,
                    high_load,
                    min_aperture,
                })
            })
        },
    },
    &Kind {
        id: "heap",
        experimental: false,
        summary: "the least loaded of all endpoints",
        example: "kind: heap\n",
        parse: |node, cx| balancer(node, cx, |_, _| Some(BalancerConfig::Heap)),
    },
    &Kind {
        id: "roundRobin",
        experimental: false,
        summary: "one endpoint after the other",
        example: "kind: roundRobin\nmaxEffort: 5\n",
        parse: |node, cx| {
            balancer(node, cx, |fields, cx| Some(BalancerConfig::RoundRobin { max_effort: max_effort(fields, cx) }))
        },
    },
];

/// The kinds that `failureAccrual` may name.
pub static FAILURE_ACCRUALS: &[&Kind<FailureAccrualConfig>] = &[
    &Kind {
        id: "io.l5d.consecutiveFailures",
        experimental: false,
        summary: "an endpoint dies after a number of failures in a row",
        example: "kind: io.l5d.consecutiveFailures\nfailures: 5\nbackoff:\n  kind: constant\n  ms: 10000\n",
        parse: |node, cx| {
            accrual(node, cx, |fields, cx| {
                fields.required("failures", cx).map(|failures| AccrualPolicyConfig::ConsecutiveFailures { failures })
            })
        },
    },
    &Kind {
        id: "io.l5d.successRate",
        experimental: false,
        summary: "an endpoint dies when too few of its last requests succeeded",
        example: "kind: io.l5d.successRate\nsuccessRate: 0.9\nrequests: 1000\n",
        parse: |node, cx| {
            accrual(node, cx, |fields, cx| {
                let success_rate = fields.required_with("successRate", cx, |node, cx| number_in(node, cx, 0.0, 1.0));
                let requests = fields.required_with("requests", cx, positive);
                Some(AccrualPolicyConfig::SuccessRate { success_rate: success_rate?, requests: requests? })
            })
        },
    },
    &Kind {
        id: "io.l5d.successRateWindowed",
        experimental: false,
        summary: "an endpoint dies when too few requests of the last seconds succeeded",
        example: "kind: io.l5d.successRateWindowed\nsuccessRate: 0.9\nwindow: 30\n",
        parse: |node, cx| {
            accrual(node, cx, |fields, cx| {
                let success_rate = fields.required_with("successRate", cx, |node, cx| number_in(node, cx, 0.0, 1.0));
                let window = fields.required_with("window", cx, positive);
                Some(AccrualPolicyConfig::SuccessRateWindowed {
                    success_rate: success_rate?,
                    window: Duration::from_secs(u64::from(window?)),
                })
            })
        },
    },
    &Kind {
        id: "none",
        experimental: false,
        summary: "endpoints never die",
        example: "kind: none\n",
        parse: |node, cx| accrual(node, cx, |_, _| Some(AccrualPolicyConfig::None)),
    },
];

/// Reads a section with a `kind` whose family has no experimental members.
fn with_kind<T>(node: &Node, cx: &mut Cx, read: impl FnOnce(&mut Fields<'_>, &mut Cx) -> Option<T>) -> Option<Box<T>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip("kind");
    let value = read(&mut fields, cx);
    fields.finish(cx);
    value.map(Box::new)
}

fn balancer(
    node: &Node,
    cx: &mut Cx,
    read: impl FnOnce(&mut Fields<'_>, &mut Cx) -> Option<BalancerConfig>,
) -> Option<Box<LoadBalancerConfig>> {
    with_kind(node, cx, |fields, cx| {
        let enable_probation = fields.or("enableProbation", false, cx);
        read(fields, cx).map(|balancer| LoadBalancerConfig { balancer, enable_probation })
    })
}

fn accrual(
    node: &Node,
    cx: &mut Cx,
    read: impl FnOnce(&mut Fields<'_>, &mut Cx) -> Option<AccrualPolicyConfig>,
) -> Option<Box<FailureAccrualConfig>> {
    with_kind(node, cx, |fields, cx| {
        let backoff = fields.optional("backoff", cx).unwrap_or_else(FailureAccrualConfig::default_backoff);
        read(fields, cx).map(|policy| FailureAccrualConfig { policy, backoff })
    })
}

fn max_effort(fields: &mut Fields<'_>, cx: &mut Cx) -> u32 {
    fields.with("maxEffort", cx, positive).unwrap_or(DEFAULT_MAX_EFFORT)
}

/// A whole number of at least 1.
fn positive(node: &Node, cx: &mut Cx) -> Option<u32> {
    match u32::from_node(node, cx)? {
        0 => wrong(node, cx, "must be greater than 0"),
        number => Some(number),
    }
}

fn positive_millis(node: &Node, cx: &mut Cx) -> Option<Duration> {
    let Millis(duration) = Millis::from_node(node, cx)?;
    if duration.is_zero() {
        return wrong(node, cx, "must be greater than 0");
    }
    Some(duration)
}

fn number_in(node: &Node, cx: &mut Cx, min: f64, max: f64) -> Option<f64> {
    let number = f64::from_node(node, cx)?;
    if (min..=max).contains(&number) {
        return Some(number);
    }
    match max {
        f64::MAX => wrong(node, cx, format!("{number} is less than {min}")),
        _ => wrong(node, cx, format!("{number} is not between {min:?} and {max:?}")),
    }
}

fn wrong<T>(node: &Node, cx: &mut Cx, what: impl Into<String>) -> Option<T> {
    cx.error(node, what);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<T: FromNode>(yaml: &str) -> Result<T, String> {
        let node = l5d_config::read(yaml).map_err(|e| e.to_string())?;
        let mut cx = Cx::new();
        let value = T::from_node(&node, &mut cx);
        let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
        if errors.is_empty() { value.ok_or_else(|| "no value, no error".to_owned()) } else { Err(errors.join("\n")) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_budget_has_finagles_defaults_and_limits() {
        assert_eq!(value("{\"ttlSecs\": 10}"), Ok(RetryBudgetConfig::default()));
        let budget = RetryBudgetConfig { ttl: ms(60_000), min_retries_per_sec: 0, percent_can_retry: 1000.0 };
        assert_eq!(value("ttlSecs: 60\nminRetriesPerSec: 0\npercentCanRetry: 1000\n"), Ok(budget));
        let error = value::<RetryBudgetConfig>("ttlSecs: 61").unwrap_err();
        assert_eq!(error, "1:10: ttlSecs: ttl must be [1 second, 60 seconds], got 61");
        assert!(value::<RetryBudgetConfig>("ttlSecs: 0").is_err());
        assert!(value::<RetryBudgetConfig>("minRetriesPerSec: -1").is_err());
        let error = value::<RetryBudgetConfig>("percentCanRetry: -0.1").unwrap_err();
        assert_eq!(error, "1:18: percentCanRetry: -0.1 is not between 0.0 and 1000.0");
    }

    #[test]
    fn a_backoff_is_constant_or_jittered() {
        assert_eq!(value("kind: constant"), Ok(BackoffConfig::Constant(ms(0))));
        assert_eq!(value("kind: constant\nms: 30"), Ok(BackoffConfig::Constant(ms(30))));
        assert_eq!(
            value("kind: jittered\nminMs: 1\nmaxMs: 20"),
            Ok(BackoffConfig::Jittered { min: ms(1), max: ms(20) })
        );
        assert_eq!(
            value::<BackoffConfig>("kind: jittered").unwrap_err(),
            "1:1: 'minMs' must be specified\n1:1: 'maxMs' must be specified"
        );
        assert!(value::<BackoffConfig>("kind: jittered\nminMs: 0\nmaxMs: 20").unwrap_err().contains("greater than 0"));
        let error = value::<BackoffConfig>("kind: jittered\nminMs: 21\nmaxMs: 20").unwrap_err();
        assert_eq!(error, "1:1: minMs (21) is more than maxMs (20)");
        assert!(value::<BackoffConfig>("ms: 1").unwrap_err().contains("missing type id property 'kind'"));
        assert!(value::<BackoffConfig>("kind: constant\nexperimental: true").unwrap_err().contains("unknown key"));
    }

    #[test]
    fn balancers_have_their_own_keys() {
        assert_eq!(value("kind: p2c"), Ok(LoadBalancerConfig::default()));
        let ewma = BalancerConfig::Ewma { max_effort: 5, decay_time: ms(10_000) };
        assert_eq!(value::<LoadBalancerConfig>("kind: ewma").map(|b| b.balancer), Ok(ewma));
        let aperture = BalancerConfig::Aperture {
            max_effort: 2,
            smooth_window: ms(5000),
            low_load: 0.5,
            high_load: 2.0,
            min_aperture: 1,
        };
        assert_eq!(value::<LoadBalancerConfig>("kind: aperture\nmaxEffort: 2").map(|b| b.balancer), Ok(aperture));
        let heap = LoadBalancerConfig { balancer: BalancerConfig::Heap, enable_probation: true };
        assert_eq!(value("kind: heap\nenableProbation: true"), Ok(heap));
        assert!(
            value::<LoadBalancerConfig>("kind: heap\nmaxEffort: 5").unwrap_err().contains("unknown key `maxEffort`")
        );
        assert!(value::<LoadBalancerConfig>("kind: aperture\nminAperture: 0").unwrap_err().contains("greater than 0"));
        assert_eq!(
            value::<LoadBalancerConfig>("kind: ewna").unwrap_err(),
            "1:7: kind: unknown balancer \"ewna\"; known: aperture, ewma, heap, p2c, roundRobin"
        );
    }

    #[test]
    fn accrual_asks_for_what_it_needs() {
        let accrual = FailureAccrualConfig {
            policy: AccrualPolicyConfig::ConsecutiveFailures { failures: 5 },
            backoff: FailureAccrualConfig::default_backoff(),
        };
        assert_eq!(value("kind: io.l5d.consecutiveFailures\nfailures: 5"), Ok(accrual.clone()));
        assert_eq!(accrual, FailureAccrualConfig::default());
        let none: FailureAccrualConfig = value("kind: none\nbackoff: {kind: constant, ms: 5}").unwrap();
        assert_eq!(none.policy, AccrualPolicyConfig::None);
        let error = value::<FailureAccrualConfig>("kind: io.l5d.consecutiveFailures").unwrap_err();
        assert_eq!(error, "1:1: 'failures' must be specified");
        for bad in [
            "kind: io.l5d.successRate\nsuccessRate: 1.1\nrequests: 1",
            "kind: io.l5d.successRate\nsuccessRate: 0.9\nrequests: 0",
            "kind: io.l5d.successRate\nsuccessRate: 0.9",
            "kind: io.l5d.successRateWindowed\nsuccessRate: 0.9\nwindow: 0",
        ] {
            assert!(value::<FailureAccrualConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_example_reads() {
        for kind in BACKOFFS {
            assert!(value::<BackoffConfig>(kind.example).is_ok(), "{kind:?}");
        }
        for kind in BALANCERS {
            assert!(value::<LoadBalancerConfig>(kind.example).is_ok(), "{kind:?}");
        }
        for kind in FAILURE_ACCRUALS {
            assert!(value::<FailureAccrualConfig>(kind.example).is_ok(), "{kind:?}");
        }
    }

    #[test]
    fn a_binding_cache_holds_something() {
        let cache: BindingCacheConfig = value("paths: 7\nidleTtlSecs: 5").unwrap();
        assert_eq!((cache.paths.get(), cache.trees.get(), cache.idle_ttl), (7, 1000, ms(5000)));
        assert_eq!(value::<BindingCacheConfig>("clients: 0").unwrap_err(), "1:10: clients: must be greater than 0");
    }

    #[test]
    fn a_pool_is_at_least_as_large_as_its_minimum() {
        let pool: HostConnectionPoolConfig = value("minSize: 1\nmaxSize: 2\nidleTimeMs: 3\nmaxWaiters: 0").unwrap();
        let wanted =
            HostConnectionPoolConfig { min_size: 1, max_size: Some(2), idle_time: Some(ms(3)), max_waiters: Some(0) };
        assert_eq!(pool, wanted);
        assert!(value::<HostConnectionPoolConfig>("minSize: 3\nmaxSize: 2").is_err());
        assert!(value::<HostConnectionPoolConfig>("maxSize: 0").is_err());
    }

    #[test]
    fn sessions_and_retries_are_optional_in_every_part() {
        assert_eq!(value("{\"idleTimeMs\": 5}"), Ok(SessionConfig { idle_time: Some(ms(5)), life_time: None }));
        let retries: RetriesConfig = value("backoff: {kind: constant}").unwrap();
        assert_eq!(retries, RetriesConfig { budget: None, backoff: Some(BackoffConfig::default()) });
        assert!(value::<RetriesConfig>("max: 3").unwrap_err().contains("unknown key `max`; known: backoff, budget"));
    }
}
