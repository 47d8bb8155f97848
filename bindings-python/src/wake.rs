//! How the core's thread wakes an event loop: an eventfd where there is one, else a pair of sockets.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// What an event loop waits on, and the core's thread writes to.
pub(crate) enum Wake {
    /// Linux: one descriptor, a counter.
    #[cfg(target_os = "linux")]
    Counter(OwnedFd),
    /// A pair of sockets: the loop reads the first.
    Pair(UnixStream, UnixStream),
}

impl Wake {
    /// `plain`: a pair of sockets also where there is an eventfd, for loops that can only receive from sockets.
    pub(crate) fn new(plain: bool) -> std::io::Result<Self> {
        #[cfg(target_os = "linux")]
        if !plain {
            use rustix::event::{EventfdFlags, eventfd};
            return Ok(Self::Counter(eventfd(
                0,
                EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
            )?));
        }
        let _ = plain;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok(Self::Pair(ours, theirs))
    }

    /// The descriptor that the loop waits on until it is readable.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            #[cfg(target_os = "linux")]
            Self::Counter(fd) => fd.as_raw_fd(),
            Self::Pair(ours, _) => ours.as_raw_fd(),
        }
    }

    /// Makes it readable. A counter or buffer that is full is readable already.
    pub(crate) fn signal(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Counter(fd) => drop(rustix::io::write(fd, &1_u64.to_ne_bytes())),
            Self::Pair(_, theirs) => drop((&*theirs).write(&[1])),
        }
    }

    /// Makes it unreadable until the next signal.
    pub(crate) fn clear(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Counter(fd) => drop(rustix::io::read(fd, &mut [0_u8; 8])),
            Self::Pair(ours, _) => while matches!((&*ours).read(&mut [0; 64]), Ok(64)) {},
        }
    }
}
