//! How receivers are told.

use std::num::NonZeroU32;

use super::super::Webhooks;
use super::super::document::{Document, Hidden};
use super::super::place::AllowRule;
use super::Check;
use crate::domain::webhook::{WebhookEvent, WebhookSecret};
use secrecy::ExposeSecret as _;

impl Check<'_> {
    pub(super) fn webhooks(&mut self, document: &Document) -> Webhooks {
        let webhooks = &document.webhooks;
        let first = webhooks.secret.iter().map(|secret| ("webhooks.secret".to_owned(), secret));
        let more = webhooks.secrets.iter().enumerate();
        let more = more.map(|(n, secret)| (format!("webhooks.secrets[{n}]"), secret));
        let given: Vec<_> = first.chain(more).collect();
        let mut secrets = Vec::new();
        for (key, Hidden(secret)) in given {
            secrets.extend(self.ok(&key, WebhookSecret::parse(secret.expose_secret())));
        }
        let mut events = Vec::new();
        for (n, name) in webhooks.events.iter().enumerate() {
            let known = WebhookEvent::named(name).ok_or_else(|| {
                let known: Vec<_> = WebhookEvent::ALL.iter().map(|event| event.as_str()).collect();
                format!("no such event; expected one of {}", known.join(", "))
            });
            let event = self.ok(&format!("webhooks.events[{n}]"), known);
            events.extend(event.filter(|event| !events.contains(event)));
        }
        if webhooks.events.is_empty() {
            self.fault("webhooks.events", "names no event");
        }
        let mut allow = Vec::new();
        for (n, text) in webhooks.allow.iter().enumerate() {
            allow.extend(self.ok(&format!("webhooks.allow[{n}]"), text.parse::<AllowRule>()));
        }
        let most = self.number("webhooks.concurrency", webhooks.concurrency, 1..=1000);
        let per_host = self.number("webhooks.concurrency_per_host", webhooks.concurrency_per_host, 1..=1000);
        Webhooks {
            secrets,
            events,
            allow,
            timeout: self.span("webhooks.timeout", webhooks.timeout, 1..=60),
            give_up_after: self.span("webhooks.give_up_after", webhooks.give_up_after, 60..=30 * 24 * 3600),
            concurrency: NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN),
            per_host: NonZeroU32::new(per_host).unwrap_or(NonZeroU32::MIN),
        }
    }
}
