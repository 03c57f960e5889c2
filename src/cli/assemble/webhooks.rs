//! Telling receivers: the secret, and who carries messages.

use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::super::{Exit, Failed};
use crate::config::{self, ControlPlan};
use crate::control::{WebhookSettings, Webhooks};
use crate::domain::webhook::WebhookSecret;
use crate::storage::{AllowRule, HttpMessenger};
use crate::store::Outbox;

/// Holds the secret of a server that was not given one.
pub(in crate::cli) const SECRET_FILE: &str = "webhook.secret";
/// Random bytes of a new secret.
const SECRET_BYTES: usize = 32;

/// How this control tells receivers. Not at all without a record that lasts, or without a secret that all controls know.
pub(super) fn webhooks(
    plan: &ControlPlan,
    outbox: Option<&Arc<dyn Outbox>>,
) -> Result<Option<Webhooks>, Failed> {
    let config = &plan.webhooks;
    let Some(outbox) = outbox else { return Ok(None) };
    let secrets = match (config.secrets.is_empty(), &plan.store) {
        (false, _) => config.secrets.clone(),
        (true, config::Store::Sqlite) => vec![own_secret(&plan.common.data_dir)?],
        (true, config::Store::Postgres(_)) => return Ok(None),
    };
    let allow = config.allow.iter().map(|rule| rule.to_string().parse::<AllowRule>());
    let allow = allow.collect::<Result<_, _>>().context("cannot use webhooks.allow")?;
    Ok(Some(Webhooks {
        outbox: Arc::clone(outbox),
        messenger: Arc::new(HttpMessenger::new(allow, config.timeout)),
        settings: WebhookSettings {
            secrets,
            events: config.events.clone(),
            give_up_after: config.give_up_after,
            concurrency: config.concurrency.get(),
            per_host: config.per_host.get(),
            timeout: config.timeout,
        },
    }))
}

/// The text of a fresh secret.
pub(in crate::cli) fn new_secret() -> Result<String, Failed> {
    let mut bytes = [0; SECRET_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Failed::msg(Exit::Failed, "the system gave no random bytes"))?;
    Ok(WebhookSecret::text(&bytes))
}

/// The secret of this data folder, made at the first start; the folder's lock is held.
fn own_secret(data_dir: &Path) -> Result<WebhookSecret, Failed> {
    let path = data_dir.join(SECRET_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = new_secret()?;
            write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
            text
        }
        Err(error) => {
            return Err(anyhow::Error::new(error).context(format!("cannot read {}", path.display())).into());
        }
    };
    let parsed = WebhookSecret::parse(&text).map_err(|error| format!("{} {error}", path.display()));
    parsed.map_err(|problem| Failed::msg(Exit::Validation, problem))
}

/// Whole or not at all: what a crash leaves behind is not taken for a secret.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let part = path.with_extension("part");
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_keeps_its_secret_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        own_secret(folder.path()).unwrap();
        let path = folder.path().join(SECRET_FILE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        own_secret(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "made once");
        std::fs::write(&path, "whsec_").unwrap();
        assert!(own_secret(folder.path()).is_err());
    }
}
