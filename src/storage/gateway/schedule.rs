//! What to fetch next and what to give up: pure, from what is here, what is coming and who waits for what.
//!
//! A reader that waits comes first; then what readers will want soon; then, when asked for, everything else. Without
//! giving up what nobody wants, left-over fetches share the link: the first frame came after 3.7 s instead of 1.0 s.

use std::ops::Range;

use super::blocks::Blocks;

/// Ranges under way at most.
pub(super) const SLOTS: usize = 2;
/// Blocks of one range at most (8 MiB).
const LONGEST: u64 = 32;
/// How far behind a waiting reader a running range may be and still count as its own (1 MiB): letting it catch up
/// costs less than a new request.
const SLACK: u64 = 4;

/// What one reader wants, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    /// The block it reads, or waits for.
    pub(super) at: u64,
    /// Blocks from there that it will want.
    pub(super) window: u64,
    /// Whether it waits.
    pub(super) state: Reading,
}

impl Want {
    /// Whether this reader reads a block or is about to.
    pub(super) const fn covers(&self, block: u64) -> bool {
        self.at <= block && block <= self.at.saturating_add(self.window)
    }
}

/// What a reader is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It has what it needs.
    Served,
    /// It waits for its block.
    Waiting,
}

/// A range under way, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    /// Next block to arrive.
    pub(super) at: u64,
    /// One after its last.
    pub(super) end: u64,
    /// How it comes along.
    pub(super) pace: Pace,
}

/// Whether giving a range up would save anything. What an origin has sent already is lost with its connection:
/// giving up ranges that were all but here cost 20 % more bytes in a seek storm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It takes time, or is not known yet.
    Slow,
    /// It will be here in a moment.
    NearlyDone,
}

impl Flight {
    const fn covers(&self, block: u64) -> bool {
        self.at <= block && block < self.end
    }
}

/// Whether what no reader asked for is fetched too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// No.
    Leave,
    /// When nothing else is to be done.
    Fetch,
}

/// One step. Later steps follow from calling [`step`] again with its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Give this flight up.
    Cancel(usize),
    /// Let this flight end before that block.
    Shorten(usize, u64),
    /// Fetch these blocks.
    Start(Range<u64>),
    /// All is as it should be.
    Wait,
}

/// The next step.
pub(super) fn step(here: &Blocks, wants: &[Want], rest: Rest, flights: &[Flight]) -> Step {
    wants
        .iter()
        .filter(|want| want.state == Reading::Waiting && !here.has(want.at))
        .find_map(|want| serve_waiting(here, want, wants, flights))
        .or_else(|| read_ahead(here, wants, flights))
        .or_else(|| fetch_rest(here, wants, rest, flights))
        .unwrap_or(Step::Wait)
}

fn serve_waiting(here: &Blocks, want: &Want, wants: &[Want], flights: &[Flight]) -> Option<Step> {
    let soon = |flight: &Flight| flight.covers(want.at) && want.at - flight.at <= SLACK;
    if flights.iter().any(soon) {
        return None;
    }
    let crowded = flights.len() >= 2 * SLOTS;
    let given_up = |flight: &Flight| crowded || flight.pace == Pace::Slow;
    if let Some(index) = flights.iter().position(|f| given_up(f) && !wants.iter().any(|w| is_for(f, w))) {
        return Some(Step::Cancel(index));
    }
    if let Some(index) = flights.iter().position(|flight| flight.covers(want.at)) {
        return Some(Step::Shorten(index, want.at));
    }
    // A reader that waits need not wait for a slot that is free in a moment anyway.
    if crowded || flights.iter().filter(|flight| flight.pace == Pace::Slow).count() >= SLOTS {
        let waited_for = |f: &Flight| wants.iter().any(|w| w.state == Reading::Waiting && f.covers(w.at));
        return flights.iter().rposition(|flight| given_up(flight) && !waited_for(flight)).map(Step::Cancel);
    }
    let end = free_run(here, flights, want.at, want.at + unit(want));
    Some(Step::Start(want.at..end))
}

fn read_ahead(here: &Blocks, wants: &[Want], flights: &[Flight]) -> Option<Step> {
    if flights.len() >= SLOTS {
        return None;
    }
    wants.iter().find_map(|want| {
        let edge = (want.at + want.window).min(here.count());
        let from = first_free(here, flights, want.at..edge)?;
        let end = free_run(here, flights, from, (from + unit(want)).min(edge));
        // A range that only the window's edge keeps short is better begun later and longer: 52 requests instead of
        // 177 for 424 MB.
        let cut_by_edge = end == edge && edge < here.count() && end - from < unit(want);
        (!cut_by_edge || from == want.at).then_some(Step::Start(from..end))
    })
}

fn fetch_rest(here: &Blocks, wants: &[Want], rest: Rest, flights: &[Flight]) -> Option<Step> {
    if rest == Rest::Leave || flights.len() >= SLOTS {
        return None;
    }
    let from = wants.iter().map(|want| want.at).min().unwrap_or(0);
    let first =
        first_free(here, flights, from..here.count()).or_else(|| first_free(here, flights, 0..from))?;
    Some(Step::Start(first..free_run(here, flights, first, first + LONGEST)))
}

/// Whether a flight brings what a reader will want.
const fn is_for(flight: &Flight, want: &Want) -> bool {
    flight.at + SLACK >= want.at && flight.at < want.at + want.window && flight.end > want.at
}

/// How long a range for this reader is: half its window, so that one range arrives while the next is asked for.
fn unit(want: &Want) -> u64 {
    (want.window / 2).clamp(1, LONGEST)
}

/// The first block of a range that is neither here nor coming.
fn first_free(here: &Blocks, flights: &[Flight], range: Range<u64>) -> Option<u64> {
    let mut from = range.start;
    loop {
        from = here.first_missing(from..range.end)?;
        match flights.iter().find(|flight| flight.covers(from)) {
            Some(flight) => from = flight.end,
            None => return Some(from),
        }
    }
}

/// Where the run of blocks from `from` that are neither here nor coming ends, at most at `limit`.
fn free_run(here: &Blocks, flights: &[Flight], from: u64, limit: u64) -> u64 {
    let limit = limit.min(here.count());
    (from + 1..limit)
        .find(|b| here.has(*b) || flights.iter().any(|f| f.covers(*b)))
        .unwrap_or(limit.max(from + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(at: u64, end: u64) -> Flight {
        Flight { at, end, pace: Pace::Slow }
    }

    fn waiting(at: u64, window: u64) -> Want {
        Want { at, window, state: Reading::Waiting }
    }

    fn served(at: u64, window: u64) -> Want {
        Want { at, window, state: Reading::Served }
    }

    #[test]
    fn a_seek_gives_up_what_nobody_wants_and_starts_where_it_is_needed() {
        let here = Blocks::missing(1000);
        let flights = [slow(10, 40), slow(40, 72)];
        let wants = [waiting(900, 16)];
        assert_eq!(step(&here, &wants, Rest::Leave, &flights), Step::Cancel(0));
        assert_eq!(step(&here, &wants, Rest::Leave, &flights[1..]), Step::Cancel(0));
        assert_eq!(step(&here, &wants, Rest::Leave, &[]), Step::Start(900..908));
        let started = [slow(900, 908)];
        assert_eq!(step(&here, &wants, Rest::Leave, &started), Step::Start(908..916));
    }

    #[test]
    fn what_is_nearly_here_is_neither_given_up_nor_waited_for() {
        let here = Blocks::missing(1000);
        let near = |at, end| Flight { at, end, pace: Pace::NearlyDone };
        let wants = [waiting(900, 16)];
        assert_eq!(step(&here, &wants, Rest::Leave, &[near(10, 40), near(40, 72)]), Step::Start(900..908));
        assert_eq!(step(&here, &wants, Rest::Leave, &[near(10, 40), slow(40, 72)]), Step::Cancel(1));
        let crowd = [near(10, 40), near(40, 72), near(100, 110), near(200, 210)];
        assert_eq!(step(&here, &wants, Rest::Leave, &crowd), Step::Cancel(0));
    }

    #[test]
    fn nothing_is_given_up_while_nobody_waits() {
        let here = Blocks::missing(1000);
        let flights = [slow(10, 40), slow(40, 72)];
        assert_eq!(step(&here, &[], Rest::Leave, &flights), Step::Wait);
        assert_eq!(step(&here, &[served(900, 16)], Rest::Fetch, &flights), Step::Wait);
    }

    #[test]
    fn a_reader_deep_inside_anothers_range_gets_its_own() {
        let here = Blocks::missing(1000);
        let flights = [slow(10, 40)];
        let wants = [served(10, 32), waiting(30, 16)];
        assert_eq!(step(&here, &wants, Rest::Leave, &flights), Step::Shorten(0, 30));
        let near = [served(10, 32), waiting(13, 16)];
        assert!(!matches!(step(&here, &near, Rest::Leave, &flights), Step::Cancel(_) | Step::Shorten(..)));
    }

    #[test]
    fn short_ranges_at_the_windows_edge_wait() {
        let here = Blocks::missing(1000);
        let flights = [slow(0, 12)];
        assert_eq!(step(&here, &[served(0, 16)], Rest::Leave, &flights), Step::Wait);
        assert_eq!(step(&here, &[served(4, 16)], Rest::Leave, &flights), Step::Start(12..20));
    }

    #[test]
    fn the_rest_is_fetched_only_when_asked_for() {
        let mut here = Blocks::missing(100);
        for block in 0..40 {
            here.set(block);
        }
        assert_eq!(step(&here, &[], Rest::Leave, &[]), Step::Wait);
        assert_eq!(step(&here, &[], Rest::Fetch, &[]), Step::Start(40..72));
        assert_eq!(step(&here, &[served(90, 4)], Rest::Fetch, &[slow(90, 100)]), Step::Start(40..72));
    }

    proptest! {
        /// Applying steps ends, never fetches a block twice, never exceeds the slots, and reaches every waiting reader.
        #[test]
        fn steps_settle_and_serve_everybody(
            count in 1_u64..200,
            set in proptest::collection::vec(0_u64..200, 0..100),
            readers in proptest::collection::vec((0_u64..200, 1_u64..64), 0..3),
            old in proptest::collection::vec((0_u64..200, 1_u64..40, proptest::bool::ANY), 0..3),
            fetch in proptest::bool::ANY,
        ) {
            let mut here = Blocks::missing(count);
            for block in set {
                here.set(block);
            }
            let wants: Vec<_> = readers.iter().map(|&(at, window)| waiting(at.min(count - 1), window)).collect();
            let mut flights: Vec<Flight> = Vec::new();
            for (at, len, near) in old {
                let at = at.min(count - 1);
                let end = free_run(&here, &flights, at, at + len);
                if !here.has(at) && !flights.iter().any(|f| f.covers(at)) {
                    flights.push(Flight { at, end, pace: if near { Pace::NearlyDone } else { Pace::Slow } });
                }
            }
            let rest = if fetch { Rest::Fetch } else { Rest::Leave };
            let mut turns = 0;
            loop {
                turns += 1;
                prop_assert!(turns < 50, "steps do not settle: {flights:?}");
                match step(&here, &wants, rest, &flights) {
                    Step::Wait => break,
                    Step::Cancel(index) => {
                        flights.remove(index);
                    }
                    Step::Shorten(index, end) => {
                        prop_assert!(flights[index].covers(end));
                        flights[index].end = end;
                    }
                    Step::Start(range) => {
                        prop_assert!(!range.is_empty() && range.end <= count);
                        prop_assert!(range.end - range.start <= LONGEST);
                        for block in range.clone() {
                            prop_assert!(!here.has(block) && !flights.iter().any(|f| f.covers(block)));
                        }
                        flights.push(slow(range.start, range.end));
                        prop_assert!(flights.len() <= 2 * SLOTS);
                    }
                }
            }
            for want in wants.iter().filter(|w| !here.has(w.at)) {
                prop_assert!(flights.iter().any(|f| f.covers(want.at)), "{want:?} is not served by {flights:?}");
            }
        }
    }
}
