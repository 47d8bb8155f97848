//! The thread that the core runs on: begun with the first server or client of an environment, ended with the last.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::error::{Failure, misuse};
use crate::queue::{gather_here, gather_no_more};

/// A thread with a runtime of its own. Tasks run in the order they were woken in, which the batches rest on.
pub(crate) struct Runtime {
    handle: Handle,
    stop: Arc<Notify>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Runtime {
    pub(crate) fn begin() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| misuse(format!("the runtime can't begin: {error}")))?;
        let stop = Arc::new(Notify::new());
        let handle = runtime.handle().clone();
        let stopped = stop.clone();
        let (alive, ended) = channel();
        std::thread::Builder::new()
            .name("etp-ws".to_owned())
            .spawn(move || {
                let _alive = alive;
                gather_here();
                runtime.block_on(stopped.notified());
                gather_no_more();
                runtime.shutdown_background();
            })
            .map_err(|error| misuse(format!("the core's thread can't begin: {error}")))?;
        Ok(Self { handle, stop, ended })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a future on the thread and waits for it, this long.
    pub(crate) fn wait(&self, work: impl Future<Output = ()> + Send + 'static, most: Duration) {
        let (done, finished) = channel::<()>();
        self.handle.spawn(async move {
            work.await;
            drop(done);
        });
        let _ = finished.recv_timeout(most);
    }

    /// Ends the thread. One that can't be reached is no reason to hang: its environment is about to end.
    pub(crate) fn end(self) {
        self.stop.notify_one();
        let _ = self.ended.recv_timeout(Duration::from_secs(1));
    }
}
