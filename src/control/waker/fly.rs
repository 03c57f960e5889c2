//! Workers that are machines on Fly: stopped ones are started through the Machines API.
//!
//! A dial to a stopped machine's private address never starts it (RELIABILITY §5), so the API is asked. Machines stop
//! by themselves: an idle worker exits with 0.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::{Need, Trouble, Waker, Woken};
use crate::control::shared::Shared;

/// The longest wait for one answer of the API.
const PATIENCE: Duration = Duration::from_secs(10);

/// The list is read again so often when a machine turns out to be in somebody else's hands.
const ROUNDS: u32 = 3;

/// Most bytes of a list of machines: each has about 2 KiB.
const LARGEST: usize = 16 << 20;

/// Where workers are machines.
#[derive(Debug, Clone)]
pub struct Fly {
    /// The workers' app.
    pub app: String,
    /// Only machines of this process group; `None` = all.
    pub group: Option<String>,
    /// Allowed to start them.
    pub token: SecretString,
    /// Where the API is.
    pub api_url: Url,
}

/// The part of a machine that matters here.
#[derive(Debug, Clone, Deserialize)]
struct Machine {
    id: String,
    state: State,
    #[serde(default)]
    config: Config,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Config {
    #[serde(default)]
    metadata: HashMap<String, String>,
}

/// A machine's state, as far as it decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Can be started.
    Stopped,
    /// Can be started; goes on where it was.
    Suspended,
    /// On its way up.
    Starting,
    /// Up.
    Started,
    /// `created`, `stopping`, `replacing`, `destroying`, `destroyed` and what may come: nothing to do with it now.
    #[serde(other)]
    Other,
}

/// What became of one start.
enum Start {
    Begun,
    /// Somebody else started it, or it is between two states.
    Taken,
}

/// The machines there are, as the API tells.
pub(in crate::control) struct Machines {
    fly: Fly,
    patience: Duration,
    /// When we started which; while any of these may still be coming up it is not started again.
    started: Mutex<HashMap<String, Instant>>,
}

impl Machines {
    pub(in crate::control) fn new(fly: Fly, patience: Duration) -> Self {
        Self { fly, patience, started: Mutex::default() }
    }

    async fn start_some(&self, need: Need, begun: &mut u32) -> Result<(), Trouble> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("flux/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            // The API inside of Fly's network is reached without one, whatever the environment says.
            .no_proxy()
            .build();
        let http = http.map_err(|error| unreachable(&error))?;
        for _ in 0..ROUNDS {
            let machines = self.list(&http).await?;
            // Others may have started some; ours are known to be coming.
            let starting = machines.iter().filter(|machine| machine.state == State::Starting).count();
            let foreign = u32::try_from(starting).unwrap_or(u32::MAX).saturating_sub(need.coming + *begun);
            let wanted = need.workers.saturating_sub(foreign);
            let mut taken = false;
            for machine in self.candidates(&machines, need.coming + *begun > 0) {
                if *begun >= wanted {
                    return Ok(());
                }
                match self.start(&http, &machine.id).await? {
                    Start::Begun => {
                        *begun += 1;
                        tracing::info!(machine = machine.id, "starting a machine");
                        self.started().insert(machine.id.clone(), Instant::now());
                    }
                    Start::Taken => taken = true,
                }
            }
            if !taken || *begun >= wanted {
                break;
            }
        }
        Ok(())
    }

    /// Machines that can be started. One that we started and that stopped again before it was heard of may be in a
    /// loop of its own: it is left alone for a while.
    fn candidates<'m>(&self, machines: &'m [Machine], some_are_coming: bool) -> Vec<&'m Machine> {
        let mut started = self.started();
        started.retain(|_, at| at.elapsed() < self.patience && some_are_coming);
        let startable = |machine: &&Machine| {
            matches!(machine.state, State::Stopped | State::Suspended) && !started.contains_key(&machine.id)
        };
        machines.iter().filter(startable).collect()
    }

    async fn list(&self, http: &reqwest::Client) -> Result<Vec<Machine>, Trouble> {
        let mut response = self.ask(http, Method::GET, &["machines"]).await?;
        if !response.status().is_success() {
            return Err(self.refused(&response));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                tracing::error!("the Machines API answers with more than it should");
                return Err(Trouble::Busy(None));
            }
        }
        let machines: Vec<Machine> = serde_json::from_slice(&body).map_err(|error| {
            tracing::error!(%error, "the Machines API answers with something else than machines");
            Trouble::Busy(None)
        })?;
        let ours = |machine: &Machine| {
            let group = machine.config.metadata.get("fly_process_group");
            self.fly.group.is_none() || self.fly.group.as_ref() == group
        };
        Ok(machines.into_iter().filter(ours).collect())
    }

    async fn start(&self, http: &reqwest::Client, id: &str) -> Result<Start, Trouble> {
        let response = self.ask(http, Method::POST, &["machines", id, "start"]).await?;
        match response.status() {
            status if status.is_success() => Ok(Start::Begun),
            StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::NOT_FOUND
            | StatusCode::GONE => {
                tracing::debug!(machine = id, status = %response.status(), "a machine is in other hands");
                Ok(Start::Taken)
            }
            _ => Err(self.refused(&response)),
        }
    }

    async fn ask(&self, http: &reqwest::Client, method: Method, below: &[&str]) -> Result<Response, Trouble> {
        let mut url = self.fly.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(["v1", "apps", &self.fly.app]).extend(below);
        }
        let Some(authorization) = self.authorization() else {
            tracing::error!("workers.fly_token has characters that no header can carry");
            return Err(Trouble::Denied);
        };
        let request = http.request(method, url).header(AUTHORIZATION, authorization);
        request.send().await.map_err(|error| unreachable(&error))
    }

    /// Fly prints its tokens with their scheme in front; older ones have none.
    fn authorization(&self) -> Option<HeaderValue> {
        let token = self.fly.token.expose_secret().trim();
        let text = if token.starts_with("FlyV1 ") { token.to_owned() } else { format!("Bearer {token}") };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn refused(&self, response: &Response) -> Trouble {
        let status = response.status();
        let told =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                tracing::error!(app = self.fly.app, %status, "Fly does not accept workers.fly_token for the app");
                Trouble::Denied
            }
            StatusCode::NOT_FOUND => {
                tracing::error!(app = self.fly.app, "Fly knows no such app (workers.fly_app)");
                Trouble::Denied
            }
            _ => {
                tracing::warn!(%status, retry_after = told, "the Machines API does not do it now");
                Trouble::Busy(told.map(Duration::from_secs))
            }
        }
    }

    fn started(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        // Every statement leaves the map whole.
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreachable(error: &reqwest::Error) -> Trouble {
    tracing::warn!(error = error as &dyn std::error::Error, "the Machines API cannot be reached");
    Trouble::Busy(None)
}

#[async_trait]
impl Waker for Machines {
    fn name(&self) -> &'static str {
        "fly"
    }

    async fn wake(&self, _: &Arc<Shared>, need: Need) -> Woken {
        let mut begun = 0;
        let trouble = self.start_some(need, &mut begun).await.err();
        if trouble.is_none() && begun == 0 {
            tracing::debug!(workers = need.workers, "no machine is stopped that could be started");
        }
        Woken { begun, trouble }
    }
}
