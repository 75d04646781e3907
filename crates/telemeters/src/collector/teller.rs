//! Says in the log when a collector stops or begins to take what it is sent: once each.

use tracing::{info, warn};

/// What was said last of one collector.
pub(crate) struct Teller {
    who: &'static str,
    collector: String,
    told: Option<bool>,
}

impl Teller {
    /// Of the collector at that address, for the telemeter of that name.
    pub(crate) fn new(who: &'static str, collector: String) -> Self {
        Self { who, collector, told: None }
    }

    /// The last request went well, or why it did not.
    pub(crate) fn tell(&mut self, trouble: Option<String>) {
        let well = trouble.is_none();
        if self.told.replace(well) == Some(well) {
            return;
        }
        match trouble {
            None => info!(collector = %self.collector, "{}: sending", self.who),
            Some(why) => warn!(collector = %self.collector, "{}: not sent: {why}", self.who),
        }
    }
}
