//! The series that every library is given: 20 counters for each of N/20 sets of labels `rt`, `client`, `service`.

/// The names of the counters, as l5d's clients have them.
pub const NAMES: [&str; 20] = [
    "requests",
    "success",
    "failures",
    "connects",
    "closes",
    "retries_total",
    "budget_exhausted",
    "cancelled",
    "sent_bytes",
    "received_bytes",
    "status_200",
    "status_2XX",
    "status_404",
    "status_4XX",
    "status_503",
    "status_5XX",
    "revivals",
    "removals",
    "probes",
    "nacks",
];

pub fn rt() -> &'static str {
    "outgoing"
}

pub fn client(at: usize) -> String {
    format!("%/io.l5d.k8s.daemonset/l5d/incoming/l5d/#/io.l5d.k8s/ns{:02}/http/service-{at:06}", at % 20)
}

pub fn service(at: usize) -> String {
    format!("svc/service-{at:06}.ns{:02}", at % 20)
}

/// What a counter stands at: seven digits or so, as busy counters have.
pub fn value(at: usize, name: usize) -> u64 {
    (at as u64 * 7919 + name as u64 * 104_729) % 9_000_000 + 1
}

/// Latencies in microseconds, spread as latencies are: log-normal, two to three octaves wide.
pub fn latencies() -> Vec<u64> {
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut uniform = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as f64 / (1_u64 << 53) as f64
    };
    let normal = |u: &mut dyn FnMut() -> f64| (0..12).map(|_| u()).sum::<f64>() - 6.0;
    (0..1000).map(|_| (1000.0 * (0.5 * normal(&mut uniform)).exp()) as u64).collect()
}
