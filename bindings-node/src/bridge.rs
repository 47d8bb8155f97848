//! Connections whose socket stays JavaScript's: TLS that Node speaks, streams that are no sockets. Their bytes are carried.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, split};
use tokio::sync::{Semaphore, mpsc};

use crate::queue::{Item, Queue};

/// Bytes in each direction that are on their way.
const WINDOW: usize = 64 * 1024;

/// How long a socket may take nothing: as the core's own rule for slow consumers has it.
const STALLED: Duration = Duration::from_secs(30);

/// JavaScript's end of a bridged connection.
pub(crate) struct Bridge {
    /// Bytes that the socket has read; closed with it.
    inward: Option<mpsc::UnboundedSender<Bytes>>,
    waiting: Arc<AtomicUsize>,
    /// Bytes that the socket may still be given.
    credit: Arc<Semaphore>,
}

impl Bridge {
    /// A bridge and the stream at its other end.
    pub(crate) fn new(queue: &Arc<Queue>, id: u32) -> (Self, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(WINDOW);
        let (mut reader, mut writer) = split(ours);
        let (inward, mut arrived) = mpsc::unbounded_channel::<Bytes>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let credit = Arc::new(Semaphore::new(WINDOW));

        let (left, resumes) = (waiting.clone(), queue.clone());
        queue.runtime.spawn(async move {
            while let Some(bytes) = arrived.recv().await {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
                let before = left.fetch_sub(bytes.len(), Ordering::SeqCst);
                if before >= WINDOW && before - bytes.len() < WINDOW {
                    resumes.push(Item::Resume(id));
                }
            }
            let _ = writer.shutdown().await;
        });

        let (room, outward) = (credit.clone(), queue.clone());
        queue.runtime.spawn(async move {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(16 * 1024);
                match reader.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {
                        let bytes = buffer.split().freeze();
                        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                        // What is on its way is bounded; the outbox above counts the rest.
                        let room = room.acquire_many(len.min(WINDOW as u32));
                        // A peer that takes nothing for so long is one that the core gives up as well; until then its end can't be seen
                        // from here.
                        let Ok(Ok(permit)) = tokio::time::timeout(STALLED, room).await else {
                            break;
                        };
                        permit.forget();
                        outward.push(Item::Bridged { id, bytes });
                    }
                }
            }
            outward.push(Item::Ended(id));
        });
        let bridge = Self {
            inward: Some(inward),
            waiting,
            credit,
        };
        (bridge, theirs)
    }

    /// Passes bytes on that the socket has read; false: it is to be paused until told.
    pub(crate) fn read(&self, bytes: Bytes) -> bool {
        let len = bytes.len();
        let before = self.waiting.fetch_add(len, Ordering::SeqCst);
        // Nobody reads when the connection has ended: then the socket is about to be.
        let _ = self.inward.as_ref().map(|inward| inward.send(bytes));
        before + len < WINDOW
    }

    /// The socket will read no more.
    pub(crate) fn read_end(&mut self) {
        self.inward = None;
    }

    /// The socket has taken bytes that it was given.
    pub(crate) fn written(&self, len: usize) {
        self.credit.add_permits(len.min(WINDOW));
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.credit.close();
    }
}
