//! API keys and sealing keys: read once, kept as hashes and hidden bytes.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::document::{Document, Key};
use super::super::{ApiKey, KeyHash, Scope, SealingKey};
use super::Check;
use crate::domain::Tenant;

/// Most submissions a minute that can be told apart from no bound.
const MAX_RATE: u32 = 1_000_000;

/// The seeds' single key: all rights, and the tenant of a server without keys, so that turning it on hides no job.
pub(super) fn seed_key(text: &str, rate_per_minute: Option<NonZeroU32>) -> ApiKey {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
    ApiKey {
        name: "API_KEY".to_owned(),
        tenant: Tenant::local(),
        hash: KeyHash(hash),
        scopes: vec![Scope::Admin],
        rate_per_minute,
    }
}

impl Check<'_> {
    pub(super) fn keys(&mut self, document: &Document, rate: Option<NonZeroU32>) -> Vec<ApiKey> {
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        let mut keys = Vec::new();
        for (n, key) in document.auth.keys.iter().enumerate() {
            let Some(key) = self.key(n, key, rate) else { continue };
            if !names.insert(key.name.clone()) {
                self.fault(&format!("auth.keys[{n}].name"), "another key has the same name");
            }
            if !hashes.insert(key.hash) {
                self.fault(&format!("auth.keys[{n}].sha256"), "another key has the same hash");
            }
            keys.push(key);
        }
        keys
    }

    /// 0 stands for no bound.
    pub(super) fn rate(&mut self, key: &str, per_minute: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(self.number(key, per_minute, 0..=MAX_RATE))
    }

    fn key(&mut self, n: usize, key: &Key, rate: Option<NonZeroU32>) -> Option<ApiKey> {
        let at = |field: &str| format!("auth.keys[{n}].{field}");
        if key.name.is_empty() {
            self.fault(&at("name"), "is empty");
        }
        let (field, tenant) = match &key.tenant {
            Some(tenant) => ("tenant", tenant),
            None => ("name", &key.name),
        };
        let tenant = self.ok(&at(field), tenant.parse::<Tenant>());
        let hash = hex_32(key.sha256.expose());
        if hash.is_none() {
            self.fault(
                &at("sha256"),
                "expected 64 hexadecimal digits: `flux key new` prints a key and its hash",
            );
        }
        let mut scopes = BTreeSet::new();
        for (m, scope) in key.scopes.iter().enumerate() {
            scopes.extend(self.variant::<Scope>(&format!("auth.keys[{n}].scopes[{m}]"), scope));
        }
        if key.scopes.is_empty() {
            self.fault(&at("scopes"), "is empty: such a key could do nothing");
        }
        let scopes = scopes.into_iter().collect();
        let rate_per_minute = key.rate_per_minute.map_or(rate, |own| self.rate(&at("rate_per_minute"), own));
        Some(ApiKey {
            name: key.name.clone(),
            tenant: tenant?,
            hash: KeyHash(hash?),
            scopes,
            rate_per_minute,
        })
    }

    pub(super) fn sealing_keys(&mut self, document: &Document) -> Vec<SealingKey> {
        let mut keys = Vec::new();
        for (n, key) in document.secrets.keys.iter().enumerate() {
            match STANDARD.decode(key.expose()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
                Some(bytes) => keys.push(SealingKey(Arc::new(secrecy::SecretBox::new(Box::new(bytes))))),
                None => self.fault(
                    &format!("secrets.keys[{n}]"),
                    "expected 32 bytes as base64, such as `openssl rand -base64 32` prints",
                ),
            }
        }
        keys
    }
}

fn hex_32(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits: [u8; 64] = digits?.try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |value, digit| value << 4 | digit);
    }
    Some(bytes)
}
