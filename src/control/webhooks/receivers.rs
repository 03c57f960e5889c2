//! How receivers have behaved, and how much of the room that leaves them.
//!
//! A receiver that hangs holds its place until the timeout. So places are given by how fast a receiver was the last time:
//! those that were prompt have all the room, those that nobody knows yet one place each and half of it together, those
//! that were slow one place each and a quarter. A message that is late steps aside: it takes no place of the others any
//! more, for as many as there are places. Whatever receivers hang and however they begin to, a prompt one waits for a
//! quarter of the timeout at most.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::WebhookSettings;
use crate::store::{Among, Take};

/// Receivers that are remembered; beyond that those without a message on its way are strangers again.
const MOST: usize = 500;
/// The part of the timeout after which a message is late.
const LATE: u32 = 4;

/// What is known of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its last message took little time, whatever became of it.
    Prompt,
    /// It was told nothing yet.
    New,
    /// Its last message took long, or one is late now.
    Slow,
}

impl Standing {
    /// In the order in which room is given.
    pub(super) const ALL: [Self; 3] = [Self::Prompt, Self::New, Self::Slow];
}

/// Receivers by `host:port`.
#[derive(Debug, Default)]
pub(in crate::control) struct Receivers(HashMap<String, Receiver>);

#[derive(Debug)]
struct Receiver {
    /// How fast the last message was that ended.
    last: Standing,
    /// When messages left that are on their way.
    flights: Vec<Instant>,
}

impl Receiver {
    fn late(&self, settings: &WebhookSettings, now: Instant) -> u32 {
        let late = self.flights.iter().filter(|left| now.duration_since(**left) >= late_after(settings));
        u32::try_from(late.count()).unwrap_or(u32::MAX)
    }

    fn standing(&self, settings: &WebhookSettings, now: Instant) -> Standing {
        if self.late(settings, now) > 0 { Standing::Slow } else { self.last }
    }

    fn flying(&self) -> u32 {
        u32::try_from(self.flights.len()).unwrap_or(u32::MAX)
    }
}

fn late_after(settings: &WebhookSettings) -> Duration {
    settings.timeout / LATE
}

impl Receivers {
    /// What receivers of this standing may be sent now; `None` = nothing.
    pub(super) fn take(&self, standing: Standing, settings: &WebhookSettings, now: Instant) -> Option<Take> {
        let all = settings.concurrency;
        let (mut flying, mut late, mut strange, mut slow) = (0, 0, 0, 0);
        for receiver in self.0.values() {
            let (on_their_way, too_late) = (receiver.flying(), receiver.late(settings, now));
            flying += on_their_way;
            late += too_late;
            match receiver.standing(settings, now) {
                Standing::Prompt => {}
                Standing::New => strange += on_their_way,
                Standing::Slow => {
                    strange += on_their_way - too_late;
                    slow += on_their_way;
                }
            }
        }
        let free = all.saturating_sub(flying - late.min(all));
        let part = |of: u32, held: u32| free.min((all / of).max(1).saturating_sub(held));
        let hosts = |standing| self.of(standing, settings, now);
        let (most, per_host, among) = match standing {
            Standing::Prompt => (free, settings.per_host, Among::Only(hosts(Standing::Prompt))),
            Standing::New => {
                let known = [hosts(Standing::Prompt), hosts(Standing::Slow)].concat();
                (part(2, strange), 1, Among::Except(known))
            }
            Standing::Slow => (part(4, slow).min(part(2, strange)), 1, Among::Only(hosts(Standing::Slow))),
        };
        let nobody = matches!(&among, Among::Only(hosts) if hosts.is_empty());
        let busy = self.0.iter().filter(|(_, receiver)| receiver.flying() > 0);
        (most > 0 && !nobody).then(|| Take {
            most,
            per_host,
            among,
            busy: busy.map(|(host, receiver)| (host.clone(), receiver.flying())).collect(),
            lease: settings.timeout.saturating_mul(2) + Duration::from_mins(1),
        })
    }

    fn of(&self, standing: Standing, settings: &WebhookSettings, now: Instant) -> Vec<String> {
        let of = |receiver: &Receiver| receiver.standing(settings, now) == standing;
        self.0.iter().filter(|(_, receiver)| of(receiver)).map(|(host, _)| host.clone()).collect()
    }

    /// A message left.
    pub(super) fn sent(&mut self, host: &str, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(host) {
            self.0.retain(|_, receiver| !receiver.flights.is_empty());
        }
        let new = || Receiver { last: Standing::New, flights: Vec::new() };
        self.0.entry(host.to_owned()).or_insert_with(new).flights.push(now);
    }

    /// A message that left then has ended, after so long.
    pub(super) fn ended(&mut self, host: &str, left: Instant, took: Duration, settings: &WebhookSettings) {
        let Some(receiver) = self.0.get_mut(host) else { return };
        if let Some(at) = receiver.flights.iter().position(|flight| *flight == left) {
            receiver.flights.swap_remove(at);
        }
        receiver.last = if took < late_after(settings) { Standing::Prompt } else { Standing::Slow };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> WebhookSettings {
        WebhookSettings {
            secrets: Vec::new(),
            events: Vec::new(),
            give_up_after: Duration::from_hours(24),
            concurrency: 32,
            per_host: 4,
            timeout: Duration::from_secs(16),
        }
    }

    const QUICK: Duration = Duration::from_millis(100);
    const SLOW: Duration = Duration::from_secs(4);

    fn room(receivers: &Receivers, standing: Standing, now: Instant) -> u32 {
        receivers.take(standing, &settings(), now).map_or(0, |take| take.most)
    }

    /// Receivers that ended one message each after `took`.
    fn known(receivers: &mut Receivers, n: usize, took: Duration, now: Instant) -> Vec<String> {
        let hosts: Vec<_> = (0..n).map(|n| format!("{n}.{}:443", took.as_millis())).collect();
        for host in &hosts {
            receivers.sent(host, now);
            receivers.ended(host, now, took, &settings());
        }
        hosts
    }

    #[test]
    fn strangers_and_the_slow_share_half_and_the_slow_a_quarter() {
        let (mut receivers, now) = (Receivers::default(), Instant::now());
        let slow = known(&mut receivers, 20, SLOW, now);
        assert_eq!(receivers.take(Standing::Prompt, &settings(), now), None, "there is none");
        assert_eq!(room(&receivers, Standing::Slow, now), 8);
        for host in &slow[..8] {
            receivers.sent(host, now);
        }
        assert_eq!((room(&receivers, Standing::Slow, now), room(&receivers, Standing::New, now)), (0, 8));
        for n in 0..8 {
            receivers.sent(&format!("new{n}:443"), now);
        }
        let prompt = known(&mut receivers, 1, QUICK, now);
        assert_eq!((room(&receivers, Standing::New, now), room(&receivers, Standing::Prompt, now)), (0, 16));
        let take = receivers.take(Standing::Prompt, &settings(), now).unwrap();
        assert_eq!((take.per_host, take.among), (4, Among::Only(prompt)));
    }

    #[test]
    fn what_is_late_steps_aside_and_its_receiver_is_slow() {
        let (mut receivers, now) = (Receivers::default(), Instant::now());
        let prompt = known(&mut receivers, 9, QUICK, now);
        for host in prompt[..8].iter().cycle().take(32) {
            receivers.sent(host, now);
        }
        assert_eq!(room(&receivers, Standing::Prompt, now), 0, "all the room is theirs");
        let late = now + SLOW;
        assert_eq!(room(&receivers, Standing::Prompt, late), 32);
        assert_eq!(room(&receivers, Standing::New, late), 16);
        assert_eq!(room(&receivers, Standing::Slow, late), 0);
        let take = receivers.take(Standing::Prompt, &settings(), late).unwrap();
        assert_eq!(take.among, Among::Only(vec![prompt[8].clone()]));
        // As many again and no more.
        for _ in 0..32 {
            receivers.sent("hanging:443", late);
        }
        assert_eq!(room(&receivers, Standing::Prompt, late + SLOW), 0);
    }

    #[test]
    fn few_places_are_enough_for_everybody_and_few_are_remembered() {
        let (mut receivers, now) = (Receivers::default(), Instant::now());
        let one = WebhookSettings { concurrency: 1, ..settings() };
        known(&mut receivers, 1, QUICK, now);
        known(&mut receivers, 1, SLOW, now);
        for standing in Standing::ALL {
            assert_eq!(receivers.take(standing, &one, now).unwrap().most, 1, "{standing:?}");
        }
        receivers.sent("busy:443", now);
        known(&mut receivers, 2 * MOST, QUICK, now);
        assert!(receivers.0.len() <= MOST && receivers.0.contains_key("busy:443"));
    }
}
