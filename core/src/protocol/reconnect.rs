//! Whether and when a client dials again.
//!
//! Delays are "full jitter": uniform between zero and a ceiling that doubles with each attempt, as measured best against herds
//! of clients in "Exponential Backoff And Jitter" (Marc Brooker, AWS Architecture Blog, 2015):
//! `sleep = random_between(0, min(cap, base * 2 ** attempt))`. Randomness and time come from the caller.

use core::time::Duration;

use super::time::millis;

/// How long to wait before the next dial.
///
/// ```
/// use core::time::Duration;
/// use etp_ws::protocol::Backoff;
///
/// let mut backoff = Backoff::default();
/// assert!(backoff.next_delay(0x5eed) <= Duration::from_millis(500));
/// assert!(backoff.next_delay(0x5eed) <= Duration::from_secs(1));
/// backoff.alive(Duration::from_secs(31));
/// assert!(backoff.next_delay(0x5eed) <= Duration::from_millis(500));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    // In milliseconds, which is what they are cut to.
    base: u64,
    cap: u64,
    reset_after: u64,
    attempt: u32,
    retry_after: u64,
}

impl Default for Backoff {
    /// From 500 ms up to 30 s, back to the start after 30 s alive.
    fn default() -> Self {
        Self::new(
            Duration::from_millis(500),
            Duration::from_secs(30),
            Duration::from_secs(30),
        )
    }
}

impl Backoff {
    /// Ceilings from `base` on, doubling up to `cap`; a connection that lives for `reset_after` starts anew.
    pub const fn new(base: Duration, cap: Duration, reset_after: Duration) -> Self {
        Self::from_millis(millis(base), millis(cap), millis(reset_after))
    }

    /// As [`new`](Self::new), in milliseconds: what crosses into another language.
    pub const fn from_millis(base: u64, cap: u64, reset_after: u64) -> Self {
        Self {
            base,
            cap,
            reset_after,
            attempt: 0,
            retry_after: 0,
        }
    }

    /// The delay before the next dial, in whole milliseconds; counts the attempt.
    ///
    /// `random` is any uniformly random number, of 48 bits or more: the remainder that is taken is then even to a
    /// millionth for any sane cap. A `Retry-After` is waited for first and the jitter added, or the clients that a busy
    /// server has put off would all come back in the same moment.
    pub fn next_delay(&mut self, random: u64) -> Duration {
        Duration::from_millis(self.next_delay_millis(random))
    }

    /// As [`next_delay`](Self::next_delay), in milliseconds.
    pub fn next_delay_millis(&mut self, random: u64) -> u64 {
        let jitter = random % (self.ceiling_millis().min(u64::MAX - 1) + 1);
        self.attempt = self.attempt.saturating_add(1);
        core::mem::take(&mut self.retry_after).saturating_add(jitter)
    }

    /// The longest that the jitter of the next delay can be.
    pub fn ceiling(&self) -> Duration {
        Duration::from_millis(self.ceiling_millis())
    }

    fn ceiling_millis(&self) -> u64 {
        // Doubled until the cap is passed, or the top bit is reached.
        let doublings = self.attempt.min(self.base.leading_zeros());
        self.base.checked_shl(doublings).unwrap_or(0).min(self.cap)
    }

    /// A connection has ended that lived this long; a long life forgives the attempts before it.
    pub fn alive(&mut self, lifetime: Duration) {
        self.alive_millis(millis(lifetime));
    }

    /// As [`alive`](Self::alive), in milliseconds.
    pub fn alive_millis(&mut self, lifetime: u64) {
        if lifetime >= self.reset_after {
            self.attempt = 0;
        }
    }

    /// A server answered with `Retry-After`: the next delay is at least this long.
    pub fn retry_after(&mut self, at_least: Duration) {
        self.retry_after = self.retry_after.max(millis(at_least));
    }
}

/// Whether a client that was disconnected like this dials again: always, except after its own close, after 1008 (it has
/// done what the server does not allow), and after 1000 with a reason: a kick says why, a restart says nothing or
/// `server shutdown`.
pub fn should_reconnect(code: u16, reason: &str, own_close: bool) -> bool {
    match code {
        _ if own_close => false,
        1008 => false,
        1000 => matches!(reason, "" | SERVER_SHUTDOWN),
        _ => true,
    }
}

/// The close reason of a server that shuts down, and will be back.
pub const SERVER_SHUTDOWN: &str = "server shutdown";

/// What follows from a re-dial that was answered with an HTTP status instead of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redial {
    /// 401, 403: give up with the error `rejected`.
    Rejected,
    /// 429, 503: dial again, and pass the answer's `Retry-After`, if it has one, to [`Backoff::retry_after`].
    Busy,
    /// Anything else: dial again.
    BackOff,
}

impl Redial {
    /// What follows from this status; `None` if no HTTP answer came.
    pub const fn after(status: Option<u16>) -> Self {
        match status {
            Some(401 | 403) => Self::Rejected,
            Some(429 | 503) => Self::Busy,
            _ => Self::BackOff,
        }
    }
}

/// Reads a `Retry-After` header given in seconds (RFC 9110, 10.2.3). `None` for anything else: a date needs a clock, and one
/// that agrees with the server's.
pub fn retry_after_seconds(value: &str) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(value.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_cap() {
        let mut backoff = Backoff::default();
        for millis in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(backoff.ceiling(), Duration::from_millis(millis));
            // The largest remainder is the ceiling itself, the smallest zero.
            assert_eq!({ backoff }.next_delay(millis), Duration::from_millis(millis));
            assert_eq!(backoff.next_delay(millis + 1), Duration::ZERO);
        }
    }

    #[test]
    fn many_attempts_and_odd_settings_stay_finite() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX, Duration::ZERO);
        for _ in 0..100 {
            backoff.next_delay(u64::MAX);
        }
        let mut nothing = Backoff::new(Duration::ZERO, Duration::ZERO, Duration::ZERO);
        assert_eq!(nothing.next_delay(u64::MAX), Duration::ZERO);
        let mut backoff = Backoff {
            attempt: u32::MAX,
            ..Backoff::default()
        };
        backoff.next_delay(0);
        assert_eq!(backoff.ceiling(), Duration::from_secs(30));
    }

    #[test]
    fn only_a_long_life_starts_anew() {
        let mut backoff = Backoff::default();
        backoff.next_delay(0);
        backoff.alive(Duration::from_millis(29_999));
        assert_eq!(backoff.ceiling(), Duration::from_secs(1));
        backoff.alive(Duration::from_secs(30));
        assert_eq!(backoff.ceiling(), Duration::from_millis(500));
    }

    #[test]
    fn retry_after_counts_once_as_the_least_delay() {
        let mut backoff = Backoff::default();
        backoff.retry_after(Duration::from_secs(5));
        assert_eq!(backoff.next_delay(200), Duration::from_millis(5_200));
        assert_eq!(backoff.next_delay(200), Duration::from_millis(200));
        backoff.retry_after(Duration::MAX);
        assert_eq!(backoff.next_delay(200), Duration::from_millis(u64::MAX));
    }

    #[test]
    fn retry_after_is_read_in_seconds_alone() {
        assert_eq!(retry_after_seconds(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after_seconds("99999999999999999999999"),
            Some(Duration::from_secs(u64::MAX))
        );
        for value in ["", "-1", "+1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(retry_after_seconds(value), None, "{value}");
        }
    }
}
