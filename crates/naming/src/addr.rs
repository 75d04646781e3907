//! The addresses behind a bound name, and how they are watched. Owns the states of an address set; choosing among the
//! addresses and keeping the last good ones is the balancer's.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::activity::Kept;

/// What is known of a bound name's addresses.
#[derive(Debug, Clone, PartialEq)]
pub enum Addr {
    /// Nothing yet.
    Pending,
    /// These, which may be none.
    Bound(Arc<EndpointSet>),
    /// The name is bound but stands for nothing.
    Neg,
    /// They could not be found out.
    Failed(Arc<str>),
}

/// The addresses of a bound name, in the order in which their source names them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EndpointSet {
    /// Each address once.
    pub endpoints: Vec<Address>,
}

/// One address.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    /// Where to connect to.
    pub addr: SocketAddr,
    /// The name that was resolved to it, if it was not a literal.
    pub host: Option<Arc<str>>,
    /// Its share among the addresses of its set.
    pub weight: f64,
    /// What `Host` should say to it, if its source knows.
    pub authority: Option<Arc<str>>,
}

/// A change that a transformer makes to every state of an address set.
pub type AddrMap = Arc<dyn Fn(Addr) -> Addr + Send + Sync>;

/// The addresses of a bound name, now and later. Cloning is cheap; when the last clone is dropped, what keeps them up to
/// date stops.
#[derive(Clone)]
pub struct AddrWatch {
    addr: watch::Receiver<Addr>,
    /// Applied in order whenever the state is read, so that a transformed name needs no task of its own.
    maps: Vec<AddrMap>,
    kept: Option<Arc<Kept>>,
}

/// The writing end of an [`AddrWatch`]. When it is dropped, the addresses stay as they are.
pub struct AddrUpdater(watch::Sender<Addr>);

impl Addr {
    /// A set of these addresses; of equal ones the first stays.
    pub fn bound(addresses: impl IntoIterator<Item = Address>) -> Self {
        let mut endpoints: Vec<Address> = Vec::new();
        for address in addresses {
            if !endpoints.iter().any(|other| other.addr == address.addr) {
                endpoints.push(address);
            }
        }
        Self::Bound(Arc::new(EndpointSet { endpoints }))
    }

    /// A failure.
    pub fn failed(why: impl Into<Arc<str>>) -> Self {
        Self::Failed(why.into())
    }
}

impl Address {
    /// An address with weight 1 that was written as a literal.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, host: None, weight: 1.0, authority: None }
    }
}

impl fmt::Display for Address {
    /// `127.0.0.1:80`, or `localhost/127.0.0.1:80` if it was resolved, as the JVM prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{host}/{}", self.addr),
            None => write!(f, "{}", self.addr),
        }
    }
}

impl AddrWatch {
    /// A state that never changes.
    pub fn value(addr: Addr) -> Self {
        Self { addr: watch::channel(addr).1, maps: Vec::new(), kept: None }
    }

    /// A writer and its first reader.
    pub fn channel(first: Addr) -> (AddrUpdater, Self) {
        let (sender, addr) = watch::channel(first);
        (AddrUpdater(sender), Self { addr, maps: Vec::new(), kept: None })
    }

    /// Keeps something alive for as long as any clone of the result lives.
    #[must_use]
    pub fn keeping(self, what: impl Any + Send + Sync) -> Self {
        Self { kept: Some(Kept::new(what, self.kept)), ..self }
    }

    /// The same addresses, changed by `map` in every state.
    #[must_use]
    pub fn mapped(mut self, map: AddrMap) -> Self {
        self.maps.push(map);
        self
    }

    /// The state now.
    pub fn current(&self) -> Addr {
        self.mapped_now(self.addr.borrow().clone())
    }

    /// The state now, which counts as seen by this clone the next time it asks [`AddrWatch::changed`].
    pub fn read(&mut self) -> Addr {
        let addr = self.addr.borrow_and_update().clone();
        self.mapped_now(addr)
    }

    fn mapped_now(&self, addr: Addr) -> Addr {
        self.maps.iter().fold(addr, |addr, map| map(addr))
    }

    /// Waits for a state that this clone has not seen; false when none will come.
    pub async fn changed(&mut self) -> bool {
        self.addr.changed().await.is_ok()
    }

    /// Waits until there is anything but [`Addr::Pending`]. Pends for ever if nothing will come.
    pub async fn settled(&mut self) -> Addr {
        loop {
            match self.read() {
                Addr::Pending if self.changed().await => {}
                Addr::Pending => std::future::pending::<()>().await,
                addr => return addr,
            }
        }
    }

    /// Whether both watch the same addresses through the same changes.
    pub fn same(&self, other: &Self) -> bool {
        self.addr.same_channel(&other.addr)
            && self.maps.len() == other.maps.len()
            && self.maps.iter().zip(&other.maps).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl fmt::Debug for AddrWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddrWatch({:?})", self.current())
    }
}

impl AddrUpdater {
    /// Sets the state and wakes the readers, unless it is the state already.
    pub fn set(&self, addr: Addr) {
        self.0.send_if_modified(|current| {
            let differs = *current != addr;
            if differs {
                *current = addr;
            }
            differs
        });
    }

    /// One more reader.
    pub fn watch(&self) -> AddrWatch {
        AddrWatch { addr: self.0.subscribe(), maps: Vec::new(), kept: None }
    }

    /// The state that was set last.
    pub fn current(&self) -> Addr {
        self.0.borrow().clone()
    }

    /// How many clones watch.
    pub fn readers(&self) -> usize {
        self.0.receiver_count()
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl fmt::Debug for AddrUpdater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddrUpdater({:?})", *self.0.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address::new(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn an_address_prints_the_name_it_came_from() {
        assert_eq!(address(80).to_string(), "127.0.0.1:80");
        assert_eq!(Address { host: Some("localhost".into()), ..address(80) }.to_string(), "localhost/127.0.0.1:80");
    }

    #[test]
    fn a_set_holds_each_address_once() {
        let Addr::Bound(set) = Addr::bound([address(1), address(2), address(1)]) else { panic!("bound") };
        assert_eq!(set.endpoints, [address(1), address(2)]);
    }

    #[tokio::test]
    async fn maps_apply_to_every_state_and_equal_states_wake_nobody() {
        let (updater, watch) = AddrWatch::channel(Addr::Pending);
        let none_is_neg: AddrMap = Arc::new(|addr| match addr {
            Addr::Bound(set) if set.endpoints.is_empty() => Addr::Neg,
            addr => addr,
        });
        let mut mapped = watch.clone().mapped(none_is_neg.clone());
        assert!(mapped.same(&watch.clone().mapped(none_is_neg)));
        assert!(!mapped.same(&watch));
        updater.set(Addr::bound([]));
        assert!(mapped.changed().await);
        assert_eq!(mapped.current(), Addr::Neg);
        assert_eq!(mapped.settled().await, Addr::Neg);
        updater.set(Addr::bound([]));
        drop(updater);
        assert!(!mapped.changed().await, "the same state again is no change");
        assert_eq!(watch.current(), Addr::bound([]));
    }
}
