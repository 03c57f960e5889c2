//! The frame rate, from packets: the median step, snapped to a standard rate within 0.1 % (MEDIA-RULES §1.18e).

use super::document::Packet;
use crate::domain::Rational;

/// Rates that cameras, studios and broadcasters use; 12.5 and 15 are common in small clips.
const STANDARD: &[(u32, u32)] = &[
    (24, 1),
    (24_000, 1001),
    (25, 1),
    (30, 1),
    (30_000, 1001),
    (48, 1),
    (48_000, 1001),
    (50, 1),
    (60, 1),
    (60_000, 1001),
    (120, 1),
    (120_000, 1001),
    (25, 2),
    (15, 1),
    (10, 1),
];

/// Rate and whether steps differ by more than a tick's rounding. `hints` are the container's average and base rates:
/// used when packets say too little, and to choose between neighbours that the ticks cannot tell apart.
pub(super) fn measure(
    packets: &[Packet],
    time_base: Rational,
    hints: [Option<Rational>; 2],
) -> (Option<Rational>, bool) {
    // Where presentation times are missing (AVI with B-frames) decode times have the same steps.
    let complete = packets.iter().all(|packet| packet.pts.is_some());
    let time = |packet: &Packet| if complete { packet.pts } else { packet.dts };
    let mut times: Vec<i64> = packets.iter().filter_map(time).collect();
    times.sort_unstable();
    times.dedup();
    let mut steps: Vec<i64> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    if steps.is_empty() {
        let single = packets.iter().find_map(|packet| packet.duration).filter(|ticks| *ticks > 0);
        let rate = hints[0].or_else(|| single.and_then(|ticks| from_step(ticks, 1, time_base))).or(hints[1]);
        return (rate.map(|rate| snap(rate.as_f64(), 1e-3, hints).unwrap_or(rate)), false);
    }
    steps.sort_unstable();
    let median = steps[steps.len() / 2];
    let regular = |step: &&i64| step.abs_diff(median) <= 1;
    // Matroska's milliseconds round 33.37 to 33 and 34: the mean of the steps around the median undoes that.
    let near = steps.iter().filter(regular);
    let (count, total) = near.fold((0_u32, 0_i64), |(n, sum), step| (n + 1, sum.saturating_add(*step)));
    let variable = steps.iter().any(|step| !regular(&step));
    let Some(measured) = from_step(total, count, time_base) else {
        return (hints[0], variable);
    };
    // What the rounding of the first and the last of these ticks can hide.
    #[expect(clippy::cast_precision_loss, reason = "a tolerance")]
    let hidden = 1.0 / (total.max(1) as f64);
    let rate = snap(measured.as_f64(), hidden.max(1e-3), hints).unwrap_or(measured);
    (Some(rate), variable)
}

/// `count` steps that took `total` ticks, as frames per second.
fn from_step(total: i64, count: u32, time_base: Rational) -> Option<Rational> {
    let (mut num, mut den) = (
        u128::from(count) * u128::from(time_base.den()),
        u128::from(u64::try_from(total).ok()?) * u128::from(time_base.num()),
    );
    if num == 0 || den == 0 {
        return None;
    }
    let divisor = gcd(num, den);
    (num, den) = (num / divisor, den / divisor);
    while num > u128::from(u32::MAX) || den > u128::from(u32::MAX) {
        (num, den) = (num / 2, den / 2);
    }
    Rational::new(u32::try_from(num).ok()?, u32::try_from(den).ok()?).ok()
}

/// The standard rate nearest to `rate` within `tolerance`; a hint that is a standard rate in reach goes first, because
/// 30 and 29.97 are just 0.1 % apart.
fn snap(rate: f64, tolerance: f64, hints: [Option<Rational>; 2]) -> Option<Rational> {
    let distance = |to: Rational| (to.as_f64() - rate).abs() / rate;
    let standard = STANDARD.iter().filter_map(|(num, den)| Rational::new(*num, *den).ok());
    let in_reach: Vec<Rational> = standard.filter(|to| distance(*to) <= tolerance).collect();
    let hinted = hints.into_iter().flatten().find(|hint| in_reach.contains(hint));
    hinted.or_else(|| in_reach.into_iter().min_by(|a, b| distance(*a).total_cmp(&distance(*b))))
}

const fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(times: impl IntoIterator<Item = i64>) -> Vec<Packet> {
        times.into_iter().map(|pts| Packet { pts: Some(pts), ..Packet::default() }).collect()
    }

    fn rational(num: u32, den: u32) -> Rational {
        Rational::new(num, den).unwrap()
    }

    #[test]
    fn exact_ticks_give_exact_rates() {
        let base = rational(1, 90_000);
        assert_eq!(
            measure(&packets((0..50).map(|n| n * 3003)), base, [None; 2]),
            (Some(rational(30_000, 1001)), false)
        );
        assert_eq!(
            measure(&packets((0..50).map(|n| n * 3600)), base, [None; 2]),
            (Some(rational(25, 1)), false)
        );
        // Decode order does not matter.
        assert_eq!(measure(&packets([0, 9000, 3000, 6000]), base, [None; 2]), (Some(rational(30, 1)), false));
    }

    #[test]
    fn milliseconds_are_seen_through() {
        let base = rational(1, 1000);
        let film = |n: i64| n * 1001 / 30;
        assert_eq!(measure(&packets((0..100).map(film)), base, [None; 2]).0, Some(rational(30_000, 1001)));
        assert_eq!(
            measure(&packets((0..60).map(|n| n * 100 / 3)), base, [Some(rational(30, 1)), None]).0,
            Some(rational(30, 1))
        );
        assert!(!measure(&packets((0..100).map(film)), base, [None; 2]).1);
    }

    #[test]
    fn odd_and_variable_rates_are_kept() {
        let base = rational(1, 2500);
        assert_eq!(measure(&packets((0..36).map(|n| n * 83)), base, [None; 2]).0, Some(rational(2500, 83)));
        // 30.02 is within 0.1 % of 30.
        let near = measure(&packets((0..36).map(|n| n * 1499)), rational(1, 45_000), [None; 2]);
        assert_eq!(near.0, Some(rational(30, 1)));
        let jumps = packets([0, 3000, 6000, 15_000, 18_000]);
        assert_eq!(measure(&jumps, rational(1, 90_000), [None; 2]), (Some(rational(30, 1)), true));
    }

    #[test]
    fn little_is_made_of_little() {
        assert_eq!(measure(&[], Rational::ONE, [None; 2]), (None, false));
        assert_eq!(
            measure(&packets([5]), Rational::ONE, [Some(rational(25, 1)), None]).0,
            Some(rational(25, 1))
        );
        assert!(!measure(&packets([0, i64::MAX, i64::MIN]), Rational::ONE, [None; 2]).1);
    }
}
