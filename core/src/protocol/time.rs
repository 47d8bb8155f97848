//! `Time`, the instant of the caller's clock: the protocol has none of its own, and wasm knows no `std::time::Instant`.

use core::time::Duration;

/// Milliseconds since an epoch that the caller chooses; only differences mean anything.
///
/// ```
/// use core::time::Duration;
/// use etp_ws::protocol::Time;
///
/// let start = Time::from_millis(1_000);
/// let deadline = start.after(Duration::from_secs(10));
/// assert_eq!(deadline.as_millis(), 11_000);
/// assert_eq!(start.until(deadline), Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    /// The instant `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The instant `duration` later, rounded up to a millisecond: a deadline never falls before what was asked for.
    /// Past the end of time it stays there, which is how "never" is said.
    pub fn after(self, duration: Duration) -> Self {
        let nanos = duration.subsec_nanos();
        let part = u64::from(nanos.div_ceil(1_000_000));
        Self(
            self.0
                .saturating_add(whole_millis(duration.as_secs()))
                .saturating_add(part),
        )
    }

    /// How long it is from here to `later`; zero if that has passed.
    pub const fn until(self, later: Time) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// Seconds in milliseconds; as many as there are at most. The comparison is what a saturating multiplication takes 128 bits for.
const fn whole_millis(secs: u64) -> u64 {
    if secs > u64::MAX / 1_000 {
        u64::MAX
    } else {
        secs * 1_000
    }
}

/// A duration in milliseconds, the rest of one cut off; as many as there are at most.
pub(super) const fn millis(duration: Duration) -> u64 {
    whole_millis(duration.as_secs()).saturating_add(duration.subsec_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_millisecond_counts_as_a_whole_one() {
        assert_eq!(
            Time::from_millis(5).after(Duration::from_nanos(1)),
            Time::from_millis(6)
        );
        assert_eq!(
            Time::from_millis(5).after(Duration::from_micros(1_999_001)),
            Time::from_millis(2_005)
        );
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        assert_eq!(Time::from_millis(5).after(Duration::MAX), Time::from_millis(u64::MAX));
        assert_eq!(Time::from_millis(5).until(Time::from_millis(4)), Duration::ZERO);
    }
}
