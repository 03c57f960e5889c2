//! Keys about workers that are down: who brings them up.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

use super::super::document::{Document, Hidden};
use super::super::{Children, Fly, Waker, Waking, place};
use super::Check;
use crate::domain::WorkerId;

/// The names of `workers.waker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    None,
    Connect,
    Process,
    Command,
    Fly,
}

/// Workers up at a time where nothing else is said and they are on machines of their own.
const ELSEWHERE: u32 = 16;

/// A child without work leaves after this long where nothing else is said.
const CHILD_IDLE: Duration = Duration::from_mins(1);

/// Where the Machines API is inside of Fly's private network, which is encrypted.
const FLY_INTERNAL: &str = "_api.internal";

impl Check<'_> {
    pub(super) fn waking(&mut self, document: &Document) -> Option<Waking> {
        let workers = &document.workers;
        let startup_timeout = self.span("workers.startup_timeout", workers.startup_timeout, 1..=3600);
        let most = self.number("workers.wake_max", workers.wake_max.unwrap_or(ELSEWHERE), 1..=4096);
        let name: Name = self.variant("workers.waker", &workers.waker)?;
        self.unused(document, name);
        let waker = match name {
            Name::None => Waker::Nobody,
            Name::Connect => {
                if workers.nodes.is_empty() && workers.dns.is_none() {
                    self.fault(
                        "workers.waker",
                        "there is nobody to connect to: set workers.nodes or workers.dns",
                    );
                }
                Waker::Connect
            }
            Name::Process => Waker::Process(self.children(document)?),
            Name::Command => Waker::Command(self.command(&workers.wake_command)?),
            Name::Fly => Waker::Fly(self.fly(document)?),
        };
        Some(Waking { waker, startup_timeout, most: NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN) })
    }

    /// A key of another waker is a mistake about which one is at work.
    fn unused(&mut self, document: &Document, name: Name) {
        let workers = &document.workers;
        let keys = [
            ("wake_command", Name::Command, !workers.wake_command.is_empty()),
            ("fly_app", Name::Fly, workers.fly_app.is_some()),
            ("fly_group", Name::Fly, workers.fly_group.is_some()),
            ("fly_token", Name::Fly, workers.fly_token.is_some()),
        ];
        for (key, owner, given) in keys {
            if given && name != owner {
                let owner = format!("{owner:?}").to_lowercase();
                self.fault(
                    &format!("workers.{key}"),
                    format!("means nothing unless workers.waker is {owner:?}"),
                );
            }
        }
    }

    fn children(&mut self, document: &Document) -> Option<Children> {
        let worker = &document.worker;
        let tls = [
            ("tls_cert_file", worker.tls_cert_file.is_some()),
            ("tls_client_ca_file", worker.tls_client_ca_file.is_some()),
        ];
        for (key, _) in tls.into_iter().filter(|(_, given)| *given) {
            let problem = "cannot be set with workers.waker = \"process\": its workers listen on loopback, in the clear";
            self.fault(&format!("worker.{key}"), problem);
        }
        let id = worker.id.as_deref().unwrap_or_default().parse::<WorkerId>().ok()?;
        Some(Children {
            file: self.origins.file().map(PathBuf::from),
            cwd: self.around.cwd.clone(),
            data_dir: PathBuf::from(&document.server.data_dir),
            id,
            slots: NonZeroU32::new(worker.slots.unwrap_or(1)).unwrap_or(NonZeroU32::MIN),
            idle_timeout: worker.idle_timeout.map_or(CHILD_IDLE, |span| span.0),
        })
    }

    fn command(&mut self, words: &[String]) -> Option<Vec<String>> {
        let Some((program, arguments)) = words.split_first() else {
            self.fault(
                "workers.wake_command",
                "is needed by workers.waker = \"command\": a program and its arguments",
            );
            return None;
        };
        let program = self.program("workers.wake_command", program);
        if !program.is_absolute() {
            self.fault("workers.wake_command", format!("there is no program {}", program.display()));
        }
        Some(std::iter::once(program.display().to_string()).chain(arguments.iter().cloned()).collect())
    }

    fn fly(&mut self, document: &Document) -> Option<Fly> {
        let workers = &document.workers;
        let app = workers.fly_app.clone().unwrap_or_default();
        for (key, name) in [("fly_app", Some(&app)), ("fly_group", workers.fly_group.as_ref())] {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_some_and(|name| name.is_empty() || !name.chars().all(plain)) {
                self.fault(&format!("workers.{key}"), "expected a name of letters, digits, '-' and '_'");
            }
        }
        let ambient = self.around.env.get("FLY_API_TOKEN").filter(|token| !token.is_empty());
        let token = workers.fly_token.clone().or_else(|| ambient.map(|token| Hidden(token.clone().into())));
        let sent = token.as_ref().is_some_and(|token| {
            !token.expose().trim().is_empty()
                && token.expose().bytes().all(|byte| (b' '..=b'~').contains(&byte))
        });
        if !sent {
            self.fault(
                "workers.fly_token",
                "set it, or FLY_API_TOKEN, to what `fly tokens create deploy` prints",
            );
        }
        let url = self.ok("workers.fly_api_url", place::endpoint(&workers.fly_api_url))?;
        if !is_private(&url) {
            self.fault("workers.fly_api_url", "would be sent the token in the clear; use https");
        }
        Some(Fly { app, group: workers.fly_group.clone(), token: token?.0, api_url: url })
    }
}

fn is_private(url: &Url) -> bool {
    url.scheme() == "https"
        || match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name == FLY_INTERNAL,
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}
