//! Looking now and then whether the topics are still the ones that are read: a topic that is deleted and created anew between
//! two fetches may look to a reader as if nothing had happened.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Keeper;
use crate::clients::kafka::Incarnations;
use crate::error::Result;

/// How often.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Topics that are not the ones that were read when the look began.
#[derive(Debug)]
pub(super) struct Changed {
    /// The control log.
    control: Option<u64>,
    /// The data topic's mark.
    data: Option<Option<u64>>,
}

impl Keeper {
    pub(super) fn look(&self) -> JoinHandle<Option<Changed>> {
        let (control, data) =
            (Arc::clone(&self.parts.control_log), Arc::clone(&self.parts.reading.incarnations));
        let (log, mark) = (self.view.log(), self.parts.reading.copies.mark());
        tokio::spawn(async move {
            // What cannot be reached, or refuses, proves nothing.
            let control = !control.is_still((log != 0).then_some(log)).await.unwrap_or(true);
            let data = !data.is_still(mark).await.unwrap_or(true);
            let changed = Changed { control: control.then_some(log), data: data.then_some(mark) };
            (control || data).then_some(changed)
        })
    }

    pub(super) fn looked(&self, changed: Option<Changed>) {
        let Some(Changed { control, data }) = changed else { return };
        // What was found to have changed meanwhile is read anew already.
        if control == Some(self.view.log()) {
            self.tail.standstill.raise();
        }
        if data == Some(self.parts.reading.copies.mark()) {
            self.parts.reading.standstill.raise();
        }
    }
}

/// Which log it is that is read; 0 where that cannot be told.
pub(super) async fn log_of(incarnations: &Incarnations) -> Result<u64> {
    Ok(incarnations.made().await?.unwrap_or(0))
}
