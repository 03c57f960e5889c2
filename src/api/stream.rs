//! Event streams: one job's history as it grows, and all jobs' changes.
//!
//! A reader holds its place and the latest state, never a queue: what it is too slow for is skipped (progress) or read
//! from the record when it is ready (events). The socket's send buffer is bounded and its writes time out, so a reader
//! that never reads costs a fixed amount and then its connection.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Uri, header};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::Api;
use super::auth::{Principal, StreamPermit};
use super::jobs;
use super::params::{self, Params};
use super::problem::Problem;
use super::server::SendBuffer;
use super::sse::{self, Follower};
use super::view::Dialect;
use crate::control::Live;
use crate::domain::{JobId, Tenant};
use crate::store::{self, JobFilter, StoredJob};

/// How soon a reading of the record that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Jobs in a snapshot of all jobs.
const SNAPSHOT: u32 = 50;
/// Least time between two batches of a stream of all jobs.
const BATCH: Duration = Duration::from_millis(250);

/// `GET /jobs/{id}/stream`.
pub(super) async fn job(
    State(api): State<Api>,
    who: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
    buffer: Option<Extension<SendBuffer>>,
) -> Result<Response, Problem> {
    let job: JobId = params::id(&id, "job")?;
    // Readers that come together share a reading, so that a crowd costs the memory of one job and not of as many.
    let reading =
        api.0.readings.read(api.control.store(), job).await.map_err(|error| Problem::from(&*error))?;
    let stored =
        reading.as_ref().map(|reading| &reading.stored).filter(|stored| reaches(who.reach(), stored));
    let stored = stored.ok_or_else(|| Problem::no_such("job"))?;
    let permit = who.admit_stream(&api)?;
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let now = Instant::now();
    let reader = JobReader {
        follower: Follower::new(stored, last),
        live: api.control.watch(job).await,
        live_open: true,
        revision: None,
        job,
        reach: who.reach().cloned(),
        beat: now + api.limits.heartbeat,
        ends: now + api.limits.stream_age,
        opened: false,
        api,
        _permit: permit,
    };
    Ok(respond(
        buffer,
        stream::unfold(reader, |mut reader| async move { Some((Ok(reader.next().await?), reader)) }),
    ))
}

/// `GET /events`: a snapshot of the newest jobs, then every job that changes. It has no resume (PROTOCOL §1.14).
pub(super) async fn all(
    State(api): State<Api>,
    who: Principal,
    uri: Uri,
    buffer: Option<Extension<SendBuffer>>,
) -> Result<Response, Problem> {
    Params::of(&uri).only(&[])?;
    let permit = who.admit_stream(&api)?;
    let now = Instant::now();
    let reader = AllReader {
        changes: api.control.store().changes(),
        changed: BTreeSet::new(),
        snapshot_due: true,
        reach: who.reach().cloned(),
        beat: now + api.limits.heartbeat,
        ends: now + api.limits.stream_age,
        not_before: now,
        opened: false,
        api,
        _permit: permit,
    };
    Ok(respond(
        buffer,
        stream::unfold(reader, |mut reader| async move { Some((Ok(reader.next().await?), reader)) }),
    ))
}

/// Whether somebody who reaches this tenant's jobs (`None` = all) reaches this one.
fn reaches(reach: Option<&Tenant>, stored: &StoredJob) -> bool {
    reach.is_none_or(|tenant| *tenant == stored.aggregate.job.tenant)
}

fn respond<S>(buffer: Option<Extension<SendBuffer>>, frames: S) -> Response
where
    S: futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
{
    if let Some(Extension(buffer)) = buffer {
        buffer.bound();
    }
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(frames)).into_response()
}

/// A reader of one job.
struct JobReader {
    api: Api,
    job: JobId,
    reach: Option<Tenant>,
    follower: Follower,
    live: watch::Receiver<Live>,
    /// The control forgets jobs that are over; then the heartbeat's reading is what is left.
    live_open: bool,
    /// The revision that the record was last read for.
    revision: Option<u64>,
    beat: Instant,
    ends: Instant,
    opened: bool,
    _permit: StreamPermit,
}

impl JobReader {
    /// The next bytes for the reader; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        if !self.opened {
            self.opened = true;
            sse::opening(&mut out);
        }
        while !self.follower.ended() && Instant::now() < self.ends {
            let live = self.live.borrow_and_update().clone();
            if self.revision != Some(live.revision) {
                match self.read(&mut out, &live).await {
                    Ok(true) => self.revision = Some(live.revision),
                    Ok(false) => return None,
                    Err(error) => {
                        tracing::debug!(job = %self.job, %error, "cannot read a job for its stream");
                        self.beat = self.beat.min(Instant::now() + TRY_AGAIN);
                    }
                }
            }
            if let Some(report) = &live.report {
                self.follower.progress(&mut out, report, self.api.clock.now());
            }
            if !out.is_empty() {
                self.beat = Instant::now() + self.api.limits.heartbeat;
                return Some(out.freeze());
            }
            tokio::select! {
                () = self.api.closing.cancelled() => return None,
                changed = self.live.changed(), if self.live_open => self.live_open = changed.is_ok(),
                () = tokio::time::sleep_until(self.beat.min(self.ends)) => {
                    // A hint may be lost, never the record: read it again.
                    self.revision = None;
                    self.beat = Instant::now() + self.api.limits.heartbeat;
                    out.extend_from_slice(sse::HEARTBEAT);
                }
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    /// Reads the record and tells what is new; `false` when the job is gone.
    async fn read(&mut self, out: &mut BytesMut, live: &Live) -> Result<bool, Arc<store::Error>> {
        let store = self.api.control.store();
        let Some(reading) = self.api.0.readings.read(store, self.job).await? else {
            return Ok(false);
        };
        let stored = &reading.stored;
        if !reaches(self.reach.as_ref(), stored) {
            return Ok(false);
        }
        let (report, now) = (live.report.as_ref(), self.api.clock.now());
        let after = self.follower.wants_after(stored);
        if let Some(events) = reading.events_after(after) {
            self.follower.catch_up(out, stored, events, report, now);
        } else {
            let events = store.events(self.job, after).await?;
            self.follower.catch_up(out, stored, &events, report, now);
        }
        Ok(true)
    }
}

/// A reader of all jobs.
struct AllReader {
    api: Api,
    reach: Option<Tenant>,
    changes: broadcast::Receiver<JobId>,
    /// Jobs that changed since the last batch.
    changed: BTreeSet<JobId>,
    snapshot_due: bool,
    beat: Instant,
    ends: Instant,
    not_before: Instant,
    opened: bool,
    _permit: StreamPermit,
}

impl AllReader {
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        if !self.opened {
            self.opened = true;
            sse::opening(&mut out);
        }
        loop {
            let now = Instant::now();
            if now >= self.ends {
                return None;
            }
            if now >= self.not_before && (self.snapshot_due || !self.changed.is_empty()) {
                self.not_before = now + BATCH;
                if let Err(error) = self.read(&mut out).await {
                    tracing::debug!(%error, "cannot read jobs for a stream");
                    self.snapshot_due = true;
                    self.not_before = now + TRY_AGAIN;
                }
            }
            if !out.is_empty() {
                self.beat = Instant::now() + self.api.limits.heartbeat;
                return Some(out.freeze());
            }
            let waiting = self.snapshot_due || !self.changed.is_empty();
            let wake = if waiting { self.not_before } else { self.beat.min(self.ends) };
            tokio::select! {
                () = self.api.closing.cancelled() => return None,
                change = self.changes.recv(), if !self.snapshot_due => match change {
                    // Bounded: past a snapshot's worth, the snapshot is cheaper.
                    Ok(job) if self.changed.len() < SNAPSHOT as usize => drop(self.changed.insert(job)),
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => self.snapshot_due = true,
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                () = tokio::time::sleep_until(wake) => {
                    if !waiting {
                        out.extend_from_slice(sse::HEARTBEAT);
                    }
                }
            }
        }
    }

    async fn read(&mut self, out: &mut BytesMut) -> store::Result<()> {
        let store = self.api.control.store();
        if self.snapshot_due {
            // From here on, later changes come one by one.
            self.changes = store.changes();
            self.changed.clear();
            let filter = JobFilter { tenant: self.reach.clone(), limit: SNAPSHOT, ..JobFilter::default() };
            let page = store.list(&filter).await?;
            let mut jobs = Vec::with_capacity(page.jobs.len());
            for stored in &page.jobs {
                jobs.push(jobs::json_of(&self.api, stored, Dialect::Canonical).await);
            }
            sse::write(out, "snapshot", None, &json!({"jobs": jobs}));
            self.snapshot_due = false;
            return Ok(());
        }
        while let Some(job) = self.changed.pop_first() {
            // No answer: deleted, or another tenant's, whose id alone would tell that it exists.
            if let Some(stored) = store.get(self.reach.as_ref(), job).await? {
                let report = self.api.control.report(job).await;
                sse::change(out, &stored, report.as_ref(), self.api.clock.now());
            }
        }
        Ok(())
    }
}
