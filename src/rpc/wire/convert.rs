//! Conversions from and to the generated messages. A field that does not convert refuses the whole message.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::super::{control_pb, pb};
use super::{
    Action, InvalidMessage, PermitGrant, Permitted, Registered, Registration, Renewal, Renewed,
    ReservationId, Reserved, RunEvent, RunFailure, RunRequest, Start, Transcode, WorkerReport,
};
use crate::domain::{
    BootId, Company, Epoch, JobId, OutputIndex, OutputStatus, Phase, Progress, Publication, PublicationId,
    PublicationState, RunId, SessionId, TaskId, TaskReport,
};

type Parsed<T> = Result<T, InvalidMessage>;

pub(in crate::rpc) fn uuid(bytes: &Bytes, field: &'static str) -> Parsed<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| InvalidMessage { field })
}

pub(in crate::rpc) fn raw(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn json<T: DeserializeOwned>(text: &str, field: &'static str) -> Parsed<T> {
    serde_json::from_str(text).map_err(|_| InvalidMessage { field })
}

/// Domain documents always serialise; an empty text would be refused by the reader, not misread.
fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn output(number: u32) -> Parsed<OutputIndex> {
    u16::try_from(number).map(OutputIndex).map_err(|_| InvalidMessage { field: "output" })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

impl From<&Publication> for pb::Publication {
    fn from(p: &Publication) -> Self {
        Self {
            publication_id: raw(p.id.uuid()),
            output: p.output.0.into(),
            handle_json: p.handle.clone(),
            manifest_json: p.manifest.clone(),
            epoch: p.epoch.0,
            run_id: raw(p.run.uuid()),
        }
    }
}

impl TryFrom<pb::Publication> for Publication {
    type Error = InvalidMessage;
    fn try_from(p: pb::Publication) -> Parsed<Self> {
        Ok(Self {
            id: PublicationId::from_uuid(uuid(&p.publication_id, "publication_id")?),
            output: output(p.output)?,
            run: RunId::from_uuid(uuid(&p.run_id, "run_id")?),
            epoch: Epoch(p.epoch),
            handle: p.handle_json,
            manifest: p.manifest_json,
            state: PublicationState::Open,
        })
    }
}

fn publications(list: Vec<pb::Publication>) -> Parsed<Vec<Publication>> {
    list.into_iter().map(Publication::try_from).collect()
}

impl From<&RunRequest> for pb::JobRequest {
    fn from(r: &RunRequest) -> Self {
        let action = match &r.action {
            Action::Attach => pb::job_request::Action::Attach(pb::Attach {}),
            Action::Start(start) => pb::job_request::Action::Start(pb::Start {
                reservation_id: raw(start.reservation.0),
                ttl_seconds: seconds(start.ttl),
                tenant: start.tenant.to_string(),
                company: pb::Company::from(start.company).into(),
                work: Some(pb::start::Work::Transcode(pb::Transcode {
                    spec_json: text(&start.work.spec),
                    secrets_json: text(&start.work.secrets),
                    completed: start.work.completed.iter().map(|o| o.0.into()).collect(),
                    open: start.work.open.iter().map(Into::into).collect(),
                    resolve_only: start.work.resolve_only,
                    earlier_failures: start.work.earlier_failures,
                })),
            }),
        };
        Self {
            task_id: raw(r.task.uuid()),
            job_id: raw(r.job.uuid()),
            run_id: raw(r.run.uuid()),
            epoch: r.epoch.0,
            boot_id: raw(r.boot.uuid()),
            session_id: raw(r.session.uuid()),
            action: Some(action),
        }
    }
}

impl TryFrom<pb::JobRequest> for RunRequest {
    type Error = InvalidMessage;
    fn try_from(r: pb::JobRequest) -> Parsed<Self> {
        let action = match r.action.ok_or(InvalidMessage { field: "action" })? {
            pb::job_request::Action::Attach(pb::Attach {}) => Action::Attach,
            pb::job_request::Action::Start(start) => Action::Start(Box::new(start.try_into()?)),
        };
        Ok(Self {
            task: TaskId::from_uuid(uuid(&r.task_id, "task_id")?),
            job: JobId::from_uuid(uuid(&r.job_id, "job_id")?),
            run: RunId::from_uuid(uuid(&r.run_id, "run_id")?),
            epoch: Epoch(r.epoch),
            boot: BootId::from_uuid(uuid(&r.boot_id, "boot_id")?),
            session: SessionId::from_uuid(uuid(&r.session_id, "session_id")?),
            action,
        })
    }
}

impl TryFrom<pb::Start> for Start {
    type Error = InvalidMessage;
    fn try_from(start: pb::Start) -> Parsed<Self> {
        let pb::start::Work::Transcode(work) = start.work.ok_or(InvalidMessage { field: "work" })?;
        Ok(Self {
            reservation: ReservationId(uuid(&start.reservation_id, "reservation_id")?),
            tenant: start.tenant.parse().map_err(|_| InvalidMessage { field: "tenant" })?,
            ttl: Duration::from_secs(start.ttl_seconds.into()),
            company: company(start.company)?,
            work: Transcode {
                spec: json(&work.spec_json, "spec_json")?,
                secrets: json(&work.secrets_json, "secrets_json")?,
                completed: work.completed.into_iter().map(output).collect::<Parsed<_>>()?,
                open: publications(work.open)?,
                resolve_only: work.resolve_only,
                earlier_failures: work.earlier_failures,
            },
        })
    }
}

impl From<Company> for pb::Company {
    fn from(company: Company) -> Self {
        match company {
            Company::Shared => Self::Shared,
            Company::Alone => Self::Alone,
        }
    }
}

fn company(number: i32) -> Parsed<Company> {
    match pb::Company::try_from(number) {
        Ok(pb::Company::Shared) => Ok(Company::Shared),
        Ok(pb::Company::Alone) => Ok(Company::Alone),
        Ok(pb::Company::Unspecified) | Err(_) => Err(InvalidMessage { field: "company" }),
    }
}

impl From<Phase> for pb::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Fetching => Self::Fetching,
            Phase::Probing => Self::Probing,
            Phase::Encoding => Self::Encoding,
            Phase::Verifying => Self::Verifying,
            Phase::Uploading => Self::Uploading,
        }
    }
}

fn phase(number: i32) -> Parsed<Phase> {
    match pb::Phase::try_from(number) {
        Ok(pb::Phase::Fetching) => Ok(Phase::Fetching),
        Ok(pb::Phase::Probing) => Ok(Phase::Probing),
        Ok(pb::Phase::Encoding) => Ok(Phase::Encoding),
        Ok(pb::Phase::Verifying) => Ok(Phase::Verifying),
        Ok(pb::Phase::Uploading) => Ok(Phase::Uploading),
        Ok(pb::Phase::Unspecified) | Err(_) => Err(InvalidMessage { field: "phase" }),
    }
}

impl From<&RunEvent> for pb::JobProgress {
    fn from(event: &RunEvent) -> Self {
        use pb::job_progress::Event as E;
        let event = match event {
            RunEvent::Accepted => E::Accepted(pb::Accepted {}),
            RunEvent::Heartbeat { monotonic, report } => E::Heartbeat(pb::Heartbeat {
                monotonic_ms: millis(*monotonic),
                phase: pb::Phase::from(report.phase).into(),
                permille: report.progress.permille().into(),
                fps: report.fps,
                speed: report.speed,
                eta_seconds: report.eta_seconds,
            }),
            RunEvent::Media(media) => E::Media(pb::Media { media_json: text(media) }),
            RunEvent::OutputMoved(output, status) => E::OutputMoved(pb::OutputMoved {
                output: output.0.into(),
                state: match status {
                    OutputStatus::Verifying => pb::OutputState::Verifying,
                    OutputStatus::Uploading => pb::OutputState::Uploading,
                    OutputStatus::Encoding => pb::OutputState::Encoding,
                    OutputStatus::Pending
                    | OutputStatus::Completed
                    | OutputStatus::Failed
                    | OutputStatus::Cancelled => pb::OutputState::Unspecified,
                }
                .into(),
            }),
            RunEvent::Ready(publication) => E::Ready(pb::Ready { publication: Some(publication.into()) }),
            RunEvent::OutputDone { output, publication, result } => E::OutputDone(pb::OutputDone {
                output: output.0.into(),
                publication_id: raw(publication.uuid()),
                result_json: text(result),
            }),
            RunEvent::Resolved(dead) => {
                E::Resolved(pb::Resolved { dead: dead.iter().map(|p| raw(p.uuid())).collect() })
            }
            RunEvent::Finished => E::Finished(pb::Finished {}),
            RunEvent::Failed(failed) => E::Failed(pb::Failed {
                failure_json: text(&failed.failure),
                outputs: failed
                    .outputs
                    .iter()
                    .map(|(output, failure)| pb::OutputFailure {
                        output: output.0.into(),
                        failure_json: text(failure),
                    })
                    .collect(),
                log_tail: failed.log_tail.clone(),
            }),
            RunEvent::Released(reason) => E::Released(pb::Released { reason: reason.clone() }),
            RunEvent::NeedSource => E::NeedSource(pb::NeedSource {}),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<pb::JobProgress> for RunEvent {
    type Error = InvalidMessage;
    fn try_from(message: pb::JobProgress) -> Parsed<Self> {
        use pb::job_progress::Event as E;
        Ok(match message.event.ok_or(InvalidMessage { field: "event" })? {
            E::Accepted(pb::Accepted {}) => Self::Accepted,
            E::Heartbeat(h) => Self::Heartbeat {
                monotonic: Duration::from_millis(h.monotonic_ms),
                report: TaskReport {
                    phase: phase(h.phase)?,
                    progress: Progress::from_permille(u16::try_from(h.permille).unwrap_or(1000)),
                    fps: h.fps.filter(|v| v.is_finite()),
                    speed: h.speed.filter(|v| v.is_finite()),
                    eta_seconds: h.eta_seconds.filter(|v| v.is_finite()),
                },
            },
            E::Media(m) => Self::Media(json(&m.media_json, "media_json")?),
            E::OutputMoved(m) => {
                let status = match pb::OutputState::try_from(m.state) {
                    Ok(pb::OutputState::Encoding) => OutputStatus::Encoding,
                    Ok(pb::OutputState::Verifying) => OutputStatus::Verifying,
                    Ok(pb::OutputState::Uploading) => OutputStatus::Uploading,
                    Ok(pb::OutputState::Unspecified) | Err(_) => {
                        return Err(InvalidMessage { field: "state" });
                    }
                };
                Self::OutputMoved(output(m.output)?, status)
            }
            E::Ready(r) => {
                Self::Ready(r.publication.ok_or(InvalidMessage { field: "publication" })?.try_into()?)
            }
            E::OutputDone(d) => Self::OutputDone {
                output: output(d.output)?,
                publication: PublicationId::from_uuid(uuid(&d.publication_id, "publication_id")?),
                result: json(&d.result_json, "result_json")?,
            },
            E::Resolved(r) => Self::Resolved(
                r.dead
                    .iter()
                    .map(|id| uuid(id, "dead").map(PublicationId::from_uuid))
                    .collect::<Parsed<_>>()?,
            ),
            E::Finished(pb::Finished {}) => Self::Finished,
            E::Failed(f) => Self::Failed(Box::new(RunFailure {
                failure: json(&f.failure_json, "failure_json")?,
                outputs: f
                    .outputs
                    .into_iter()
                    .map(|o| Ok((output(o.output)?, json(&o.failure_json, "failure_json")?)))
                    .collect::<Parsed<_>>()?,
                log_tail: f.log_tail,
            })),
            E::Released(r) => Self::Released(r.reason),
            E::NeedSource(pb::NeedSource {}) => Self::NeedSource,
        })
    }
}

impl From<&PermitGrant> for pb::PermitRequest {
    fn from(grant: &PermitGrant) -> Self {
        let base = Self {
            run_id: raw(grant.run.uuid()),
            output: grant.output.0.into(),
            publication_id: raw(grant.publication.uuid()),
            ..Self::default()
        };
        match &grant.granted {
            None => base,
            Some(permitted) => Self {
                lower: permitted.lower.iter().map(Into::into).collect(),
                ttl_seconds: seconds(permitted.ttl),
                echo_monotonic_ms: millis(permitted.echo),
                granted: true,
                ..base
            },
        }
    }
}

impl TryFrom<pb::PermitRequest> for PermitGrant {
    type Error = InvalidMessage;
    fn try_from(p: pb::PermitRequest) -> Parsed<Self> {
        let granted = if p.granted {
            Some(Permitted {
                lower: publications(p.lower)?,
                ttl: Duration::from_secs(p.ttl_seconds.into()),
                echo: Duration::from_millis(p.echo_monotonic_ms),
            })
        } else {
            None
        };
        Ok(Self {
            run: RunId::from_uuid(uuid(&p.run_id, "run_id")?),
            output: output(p.output)?,
            publication: PublicationId::from_uuid(uuid(&p.publication_id, "publication_id")?),
            granted,
        })
    }
}

impl From<WorkerReport> for pb::WorkerStatus {
    fn from(report: WorkerReport) -> Self {
        Self {
            worker_id: report.worker.to_string(),
            boot_id: raw(report.boot.uuid()),
            version: report.version,
            max_concurrent_jobs: report.slots,
            current_jobs: report.busy,
            active_job_ids: report.jobs.iter().map(ToString::to_string).collect(),
            state: state(report.draining).into(),
            encoders: report.encoders,
            ffmpeg_version: report.ffmpeg_version,
            sandbox: report.sandbox,
            disk_free: report.disk_free,
            protocol: report.protocol,
        }
    }
}

fn state(draining: bool) -> pb::WorkerState {
    if draining { pb::WorkerState::Draining } else { pb::WorkerState::Ready }
}

impl TryFrom<pb::WorkerStatus> for WorkerReport {
    type Error = InvalidMessage;
    fn try_from(s: pb::WorkerStatus) -> Parsed<Self> {
        Ok(Self {
            worker: s.worker_id.parse().map_err(|_| InvalidMessage { field: "worker_id" })?,
            boot: BootId::from_uuid(uuid(&s.boot_id, "boot_id")?),
            version: s.version,
            slots: s.max_concurrent_jobs,
            busy: s.current_jobs,
            jobs: s
                .active_job_ids
                .iter()
                .map(|id| id.parse().map_err(|_| InvalidMessage { field: "active_job_ids" }))
                .collect::<Parsed<_>>()?,
            draining: s.state == i32::from(pb::WorkerState::Draining),
            encoders: s.encoders,
            ffmpeg_version: s.ffmpeg_version,
            sandbox: s.sandbox,
            disk_free: s.disk_free,
            protocol: s.protocol,
        })
    }
}

impl From<Reserved> for pb::ReserveResponse {
    fn from(r: Reserved) -> Self {
        Self {
            boot_id: raw(r.boot.uuid()),
            reservation_ids: r.reservations.iter().map(|id| raw(id.0)).collect(),
            state: state(r.draining).into(),
        }
    }
}

impl TryFrom<pb::ReserveResponse> for Reserved {
    type Error = InvalidMessage;
    fn try_from(r: pb::ReserveResponse) -> Parsed<Self> {
        Ok(Self {
            boot: BootId::from_uuid(uuid(&r.boot_id, "boot_id")?),
            reservations: r
                .reservation_ids
                .iter()
                .map(|id| uuid(id, "reservation_ids").map(ReservationId))
                .collect::<Parsed<_>>()?,
            draining: r.state == i32::from(pb::WorkerState::Draining),
        })
    }
}

fn runs(ids: &[Bytes]) -> Parsed<Vec<RunId>> {
    ids.iter().map(|id| uuid(id, "run_ids").map(RunId::from_uuid)).collect()
}

impl From<&Renewal> for pb::RenewRequest {
    fn from(r: &Renewal) -> Self {
        Self {
            session_id: raw(r.session.uuid()),
            run_ids: r.runs.iter().map(|id| raw(id.uuid())).collect(),
            ttl_seconds: seconds(r.ttl),
            echo_monotonic_ms: millis(r.echo),
        }
    }
}

impl TryFrom<pb::RenewRequest> for Renewal {
    type Error = InvalidMessage;
    fn try_from(r: pb::RenewRequest) -> Parsed<Self> {
        Ok(Self {
            session: SessionId::from_uuid(uuid(&r.session_id, "session_id")?),
            runs: runs(&r.run_ids)?,
            ttl: Duration::from_secs(r.ttl_seconds.into()),
            echo: Duration::from_millis(r.echo_monotonic_ms),
        })
    }
}

impl From<Renewed> for pb::RenewResponse {
    fn from(r: Renewed) -> Self {
        Self { boot_id: raw(r.boot.uuid()), run_ids: r.runs.iter().map(|id| raw(id.uuid())).collect() }
    }
}

impl TryFrom<pb::RenewResponse> for Renewed {
    type Error = InvalidMessage;
    fn try_from(r: pb::RenewResponse) -> Parsed<Self> {
        Ok(Self { boot: BootId::from_uuid(uuid(&r.boot_id, "boot_id")?), runs: runs(&r.run_ids)? })
    }
}

impl From<&Registration> for control_pb::RegisterRequest {
    fn from(r: &Registration) -> Self {
        Self {
            worker_id: r.worker.to_string(),
            boot_id: raw(r.boot.uuid()),
            address: r.address.clone(),
            slots: r.slots,
            version: r.version.clone(),
            protocol: r.protocol,
        }
    }
}

impl TryFrom<control_pb::RegisterRequest> for Registration {
    type Error = InvalidMessage;
    fn try_from(r: control_pb::RegisterRequest) -> Parsed<Self> {
        Ok(Self {
            worker: r.worker_id.parse().map_err(|_| InvalidMessage { field: "worker_id" })?,
            boot: BootId::from_uuid(uuid(&r.boot_id, "boot_id")?),
            address: r.address,
            slots: r.slots,
            version: r.version,
            protocol: r.protocol,
        })
    }
}

impl From<Registered> for control_pb::RegisterResponse {
    fn from(r: Registered) -> Self {
        Self { again_seconds: seconds(r.again) }
    }
}

impl From<control_pb::RegisterResponse> for Registered {
    fn from(r: control_pb::RegisterResponse) -> Self {
        Self { again: Duration::from_secs(r.again_seconds.into()) }
    }
}
