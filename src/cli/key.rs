//! `flux key new`.

use std::fmt::Write as _;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use super::args::{KeyAction, KeyArgs};
use super::output::{data, note};
use super::{Exit, Failed, Outcome};
use crate::domain::Tenant;

pub(super) fn run(args: &KeyArgs) -> Outcome {
    let KeyAction::New { name, tenant } = &args.action;
    let owner = tenant.as_deref().unwrap_or(name);
    for text in [name.as_str(), owner] {
        text.parse::<Tenant>().map_err(|error| Failed::new(Exit::Usage, anyhow::Error::new(error)))?;
    }
    let mut secret = [0_u8; 32];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| Failed::msg(Exit::Failed, "the system gives no random bytes"))?;
    let key = format!("flux_{}", hex(&secret));
    let hash = hex(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    data(&key);
    note("Keep it: it is not stored anywhere. For the configuration:");
    note(format_args!(
        "[[auth.keys]]\nname = {name:?}\ntenant = {owner:?}\nsha256 = \"{hash}\"\nscopes = [\"jobs:read\", \"jobs:write\"]"
    ));
    Ok(Exit::Ok)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
