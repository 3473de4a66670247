//! Looking now and then whether the topics are still the ones that are read: a topic that is deleted and created anew between
//! two fetches may look to a reader as if nothing had happened.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Keeper;
use crate::clients::kafka::Incarnations;
use crate::error::{ErrorKind, Result};

/// How often.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Topics that are not the ones that are read.
#[derive(Debug)]
pub(super) struct Changed {
    control: bool,
    data: bool,
}

impl Keeper {
    pub(super) fn look(&self) -> JoinHandle<Option<Changed>> {
        let (control, data) =
            (Arc::clone(&self.parts.control_log), Arc::clone(&self.parts.reading.incarnations));
        let read = (self.view.log(), self.parts.reading.copies.mark());
        tokio::spawn(async move {
            let control = is_another(control.refreshed().await.map(|mark| mark.unwrap_or(0) == read.0));
            let data = is_another(data.refreshed().await.map(|mark| mark == read.1));
            (control || data).then_some(Changed { control, data })
        })
    }

    pub(super) fn looked(&self, changed: Option<Changed>) {
        let Some(Changed { control, data }) = changed else { return };
        if control {
            self.tail.standstill.raise();
        }
        if data {
            self.parts.reading.standstill.raise();
        }
    }
}

/// A topic that the broker refuses to describe is gone. One that cannot be reached proves nothing.
fn is_another(is_same: Result<bool>) -> bool {
    is_same.map_or_else(|error| error.kind() == ErrorKind::Broker, |same| !same)
}

/// Which log it is that is read; 0 where that cannot be told.
pub(super) async fn log_of(incarnations: &Incarnations) -> Result<u64> {
    Ok(incarnations.refreshed().await?.unwrap_or(0))
}
