//! How long to wait before a destination is tried again.

use std::time::Duration;

/// Pauses between tries: doubled from the first to the longest, until none is left.
#[derive(Debug, Clone)]
pub(super) struct Pauses {
    left: u32,
    next: Duration,
    longest: Duration,
}

impl Default for Pauses {
    /// 5 more tries within 15 s; what a server asks for may make it more.
    fn default() -> Self {
        Self::new(5, Duration::from_millis(500), Duration::from_secs(8))
    }
}

impl Pauses {
    /// Longest pause that a server can ask for (`Retry-After`). It is waited under a permit, while a run holds its slot.
    const ASKED: Duration = Duration::from_secs(30);

    /// `tries` pauses from `first` to `longest`.
    #[must_use]
    pub(super) const fn new(tries: u32, first: Duration, longest: Duration) -> Self {
        Self { left: tries, next: first, longest }
    }

    /// The pause before another try, at least what the server asked for; `None` when there is to be none.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.next.min(self.longest);
        self.next = self.next.saturating_mul(2);
        Some(pause.max(asked.unwrap_or_default().min(Self::ASKED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let mut pauses = Pauses::default();
        let all: Vec<_> = std::iter::from_fn(|| pauses.next(None)).map(|p| p.as_millis()).collect();
        assert_eq!(all, [500, 1000, 2000, 4000, 8000]);
        let mut pauses = Pauses::default();
        assert_eq!(pauses.next(Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(pauses.next(Some(Duration::MAX)), Some(Pauses::ASKED));
    }
}
