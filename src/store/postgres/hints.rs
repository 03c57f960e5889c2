//! Hints between controls: NOTIFY from a connection of its own, never in a transaction that does anything else, since
//! its commit waits for that of every other notifier (PROTOCOL §1.13). Hints may be lost; polling is the truth.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use crate::domain::JobId;

const CHANNEL: &str = "flux_changes";
/// How long changes gather before they are told: at most so often is there a NOTIFY of this control.
const GATHER: Duration = Duration::from_millis(50);
/// Jobs in one payload, which may have 8,000 bytes.
const JOBS: usize = 200;
/// Changes that wait to be told; more are dropped. Also the most that are told at once.
pub(super) const QUEUE: usize = 1000;
/// Between attempts to connect.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells other controls what changed here, until the store is closed.
pub(super) async fn tell(place: PgConnectOptions, own: Uuid, mut news: mpsc::Receiver<JobId>) {
    let mut conn: Option<PgConnection> = None;
    while let Some(first) = news.recv().await {
        let mut jobs = vec![first];
        tokio::time::sleep(GATHER).await;
        while jobs.len() < QUEUE {
            let Ok(next) = news.try_recv() else { break };
            jobs.push(next);
        }
        jobs.sort_unstable();
        jobs.dedup();
        let open = match conn.take() {
            Some(conn) => Ok(conn),
            None => place.connect().await,
        };
        let told = match open {
            Ok(mut open) => notify(&mut open, own, &jobs).await.map(|()| conn = Some(open)),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            tracing::debug!(error = &error as &dyn std::error::Error, "other controls were given no hint");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn notify(conn: &mut PgConnection, own: Uuid, jobs: &[JobId]) -> sqlx::Result<()> {
    let payload = |jobs: &[JobId]| {
        let ids = jobs.iter().map(|job| job.uuid().simple().to_string());
        std::iter::once(own.simple().to_string()).chain(ids).collect::<Vec<_>>().join(" ")
    };
    let payloads: Vec<String> = jobs.chunks(JOBS).map(payload).collect();
    sqlx::query("select pg_notify($1, payload) from unnest($2::text[]) v(payload)")
        .bind(CHANNEL)
        .bind(payloads)
        .execute(conn)
        .await?;
    Ok(())
}

/// Hears what changed elsewhere, and connects again by itself. Ends with the task it runs in.
pub(super) async fn listen(place: PgConnectOptions, own: Uuid, changes: broadcast::Sender<JobId>) {
    loop {
        let Err(error) = hear(&place, own, &changes).await;
        tracing::debug!(error = &error as &dyn std::error::Error, "other controls are not heard");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn hear(
    place: &PgConnectOptions,
    own: Uuid,
    changes: &broadcast::Sender<JobId>,
) -> sqlx::Result<std::convert::Infallible> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(place.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        let heard = listener.recv().await?;
        for job in jobs(heard.payload(), own) {
            // Nobody may be listening.
            let _ = changes.send(job);
        }
    }
}

/// The jobs in a payload of somebody else; this control has told its own readers already.
fn jobs(payload: &str, own: Uuid) -> impl Iterator<Item = JobId> {
    let mut words = payload.split(' ').map(|word| Uuid::try_parse(word).ok());
    let foreign = words.next().flatten().is_some_and(|who| who != own);
    words.flatten().map(JobId::from_uuid).filter(move |_| foreign)
}
