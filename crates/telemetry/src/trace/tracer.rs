//! Who is told of a request, and how what happened to it is gathered.
//!
//! [`Tracing`] is made once and shared by all routers: it has the tracers and the switch of `/admin/tracing`. For each
//! request [`Tracing::begin`] lets the tracers vote on sampling, as Finagle's `BroadcastTracer` does, and gives a
//! [`Recording`] if one of them wants to know. Clones of a recording share what they write: it is behind a mutex that only
//! one request ever takes. The last clone, wherever it is dropped, gives all of it to the tracers: also for a request that
//! is given up half-way.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Annotation, Record, Span, TraceId, Value, span};

/// Is told what happened to requests.
pub trait Tracer: Send + Sync {
    /// Whether a trace whose sampling is undecided shall be sampled; the answer travels with the trace. `None`: no opinion.
    fn vote(&self, id: &TraceId) -> Option<bool>;

    /// Whether it wants to know of the trace, whose id has the decision, if one was made.
    fn wants(&self, id: &TraceId) -> bool;

    /// Takes what happened to a request that it wants to know of. Called on the thread that ends the request: whatever
    /// takes time is to be left to another.
    fn record(&self, trace: &Arc<Trace>);
}

/// The tracers of a process, and whether anything is recorded.
pub struct Tracing {
    tracers: Arc<[Arc<dyn Tracer>]>,
    enabled: AtomicBool,
}

impl Tracing {
    /// Of these tracers, enabled.
    pub fn new(tracers: Vec<Arc<dyn Tracer>>) -> Arc<Self> {
        Arc::new(Self { tracers: tracers.into(), enabled: AtomicBool::new(true) })
    }

    /// Without tracers: nothing is ever recorded.
    pub fn none() -> Arc<Self> {
        Self::new(Vec::new())
    }

    /// From now on nothing is recorded, or is again. Sampling is decided as before: others depend on it.
    pub fn enable(&self, on: bool) {
        self.enabled.store(on, Relaxed);
    }

    /// Decides on sampling if nobody has, and begins to record if a tracer wants to know.
    pub fn begin(&self, id: &mut TraceId) -> Recording {
        if self.tracers.is_empty() {
            return Recording::OFF;
        }
        self.decide(id)
    }

    fn decide(&self, id: &mut TraceId) -> Recording {
        if id.sampled().is_none() {
            let (mut all_no, mut any_yes) = (true, false);
            for tracer in &*self.tracers {
                match tracer.vote(id) {
                    Some(true) => any_yes = true,
                    Some(false) => {}
                    None => all_no = false,
                }
            }
            if any_yes || all_no {
                *id = id.with_sampled(any_yes);
            }
        }
        let on = id.sampled() != Some(false)
            && self.enabled.load(Relaxed)
            && self.tracers.iter().any(|tracer| tracer.wants(id));
        if !on {
            return Recording::OFF;
        }
        let records = Mutex::new(Records { list: Vec::with_capacity(ROOM), lost: 0 });
        Recording(Some(Arc::new(Open { id: *id, records, tracers: Arc::clone(&self.tracers) })))
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing").field("tracers", &self.tracers.len()).finish_non_exhaustive()
    }
}

/// What an ordinary request brings: one attempt, about as many records.
const ROOM: usize = 48;
/// More records than any sensible request brings, a hundred retries among them.
const MOST: usize = 4096;

/// Where what happens to one request is written, or nowhere.
#[derive(Clone, Default)]
pub struct Recording(Option<Arc<Open>>);

struct Open {
    /// The server's span.
    id: TraceId,
    records: Mutex<Records>,
    tracers: Arc<[Arc<dyn Tracer>]>,
}

struct Records {
    list: Vec<Record>,
    /// How many there was no room for.
    lost: u32,
}

impl Recording {
    /// Writes nothing.
    pub const OFF: Self = Self(None);

    /// Whether anything is written. What is only made to be recorded is made after asking this.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes down what just happened to a span.
    #[inline]
    pub fn record(&self, span: &TraceId, annotation: Annotation) {
        if self.is_on() {
            self.record_all(span, [annotation]);
        }
    }

    /// The same for things that happened at once, in this order.
    pub fn record_all(&self, span: &TraceId, annotations: impl IntoIterator<Item = Annotation>) {
        let Some(open) = &self.0 else { return };
        let at_us = now_us();
        let mut records = open.records.lock().unwrap_or_else(PoisonError::into_inner);
        for annotation in annotations {
            if records.list.len() < MOST {
                records.list.push(Record { span: *span, at_us, annotation });
            } else {
                records.lost += 1;
            }
        }
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Recording(on)" } else { "Recording(off)" })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Records { list: mut records, lost } = std::mem::replace(
            self.records.get_mut().unwrap_or_else(PoisonError::into_inner),
            Records { list: Vec::new(), lost: 0 },
        );
        if lost > 0 {
            let annotation = Annotation::Binary("l5d.records_lost", Value::Int(lost.into()));
            records.push(Record { span: self.id, at_us: now_us(), annotation });
        }
        let trace = Arc::new(Trace { id: self.id, records });
        for tracer in self.tracers.iter().filter(|tracer| tracer.wants(&trace.id)) {
            tracer.record(&trace);
        }
    }
}

/// What happened to one request here: the server's span and those beneath it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The server's span.
    pub id: TraceId,
    /// In the order in which it happened.
    pub records: Vec<Record>,
}

impl Trace {
    /// The spans, in the order in which they began.
    pub fn spans(&self) -> Vec<Span<'_>> {
        span::spans(self)
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Sampler;

    struct Fake {
        vote: Option<bool>,
        wants: Sampler,
        got: Mutex<Vec<Arc<Trace>>>,
    }

    impl Tracer for Fake {
        fn vote(&self, _: &TraceId) -> Option<bool> {
            self.vote
        }

        fn wants(&self, id: &TraceId) -> bool {
            self.wants.wants(id)
        }

        fn record(&self, trace: &Arc<Trace>) {
            self.got.lock().unwrap().push(Arc::clone(trace));
        }
    }

    fn fake(vote: Option<bool>, rate: f64) -> Arc<Fake> {
        Arc::new(Fake { vote, wants: Sampler::new(rate), got: Mutex::default() })
    }

    fn decided(tracers: &[&Arc<Fake>], id: TraceId) -> (Option<bool>, bool) {
        let tracing = Tracing::new(tracers.iter().map(|t| Arc::clone(t) as Arc<dyn Tracer>).collect());
        let mut id = id;
        let on = tracing.begin(&mut id).is_on();
        (id.sampled(), on)
    }

    #[test]
    fn tracers_vote_as_finagles_broadcast_does() {
        let (yes, no, all, none) = (fake(Some(true), 0.0), fake(Some(false), 0.0), fake(None, 1.0), fake(None, 0.0));
        let root = TraceId::root();
        assert_eq!(decided(&[], root), (None, false));
        assert_eq!(decided(&[&yes, &no], root), (Some(true), true));
        assert_eq!(decided(&[&no, &no], root), (Some(false), false));
        assert_eq!(decided(&[&no, &all], root), (None, true), "one without an opinion leaves it open");
        assert_eq!(decided(&[&no, &none], root), (None, false), "but does not have to want it");
        assert_eq!(decided(&[&none], root), (None, false));
        assert_eq!(decided(&[&all], root.with_sampled(false)), (Some(false), false));
        assert_eq!(decided(&[&no], root.with_sampled(true)), (Some(true), true), "what came along is not voted on");
    }

    #[test]
    fn the_last_clone_gives_all_of_it_to_those_who_want_it() {
        let (all, none) = (fake(None, 1.0), fake(None, 0.0));
        let tracing = Tracing::new(vec![Arc::clone(&all) as _, Arc::clone(&none) as _]);
        let mut id = TraceId::root();
        let recording = tracing.begin(&mut id);
        let other = recording.clone();
        recording.record(&id, Annotation::ServerRecv);
        drop(recording);
        let child = id.child();
        other.record(&child, Annotation::ClientSend);
        assert!(all.got.lock().unwrap().is_empty());
        drop(other);
        let got = all.got.lock().unwrap();
        assert_eq!((got.len(), got[0].id), (1, id));
        let kinds: Vec<_> = got[0].records.iter().map(|r| (r.span, r.annotation.to_string())).collect();
        assert_eq!(kinds, [(id, "ServerRecv".to_owned()), (child, "ClientSend".to_owned())]);
        assert!(none.got.lock().unwrap().is_empty());
    }

    #[test]
    fn the_switch_stops_recording_and_leaves_sampling_alone() {
        let yes = fake(Some(true), 1.0);
        let tracing = Tracing::new(vec![Arc::clone(&yes) as _]);
        tracing.enable(false);
        let mut id = TraceId::root();
        assert!(!tracing.begin(&mut id).is_on());
        assert_eq!(id.sampled(), Some(true));
        tracing.enable(true);
        assert!(tracing.begin(&mut id).is_on());
    }

    #[test]
    fn a_request_without_end_is_cut_and_says_so() {
        let all = fake(None, 1.0);
        let tracing = Tracing::new(vec![Arc::clone(&all) as _]);
        let mut id = TraceId::root();
        let recording = tracing.begin(&mut id);
        for _ in 0..MOST + 7 {
            recording.record(&id, Annotation::WireSend);
        }
        drop(recording);
        let got = all.got.lock().unwrap();
        assert_eq!(got[0].records.len(), MOST + 1);
        assert_eq!(got[0].records[MOST].annotation, Annotation::Binary("l5d.records_lost", Value::Int(7)));
    }
}
