//! Every call over every transport, and everybody who must not come in.

mod network;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::wire::{
    Action, Given, PROTOCOL, PermitGrant, Renewal, Renewed, ReservationId, Reserved, RunEvent, RunRequest,
    WorkerReport,
};
use super::{CallError, Refusal, WorkerApi, WorkerClient};
use crate::domain::{BootId, Epoch, JobId, Phase, Progress, RunId, SessionId, TaskId, TaskReport, WorkerId};

/// Answers every call with what the request said, so that a lost field shows.
#[derive(Default)]
struct Echo {
    /// The protocol it claims to speak, if another one.
    protocol: Option<u32>,
}

fn heartbeat() -> RunEvent {
    RunEvent::Heartbeat {
        monotonic: Duration::from_millis(1234),
        report: TaskReport {
            phase: Phase::Encoding,
            progress: Progress::from_permille(417),
            fps: Some(25.5),
            speed: None,
            eta_seconds: Some(3.0),
        },
    }
}

#[async_trait]
impl WorkerApi for Echo {
    async fn run(&self, request: RunRequest) -> Result<mpsc::Receiver<RunEvent>, Refusal> {
        if request.epoch == Epoch(0) {
            return Err(Refusal::Stale("a higher epoch was seen"));
        }
        let (events, receiver) = mpsc::channel(8);
        for event in [RunEvent::Accepted, heartbeat(), RunEvent::Finished] {
            events.send(event).await.unwrap();
        }
        Ok(receiver)
    }
    async fn status(&self) -> WorkerReport {
        WorkerReport {
            worker: "w".parse::<WorkerId>().unwrap(),
            boot: BootId::from_uuid(Uuid::from_u128(9)),
            version: "1".into(),
            slots: 2,
            busy: 1,
            jobs: vec![JobId::from_uuid(Uuid::from_u128(3))],
            draining: true,
            encoders: vec!["libx264".into()],
            ffmpeg_version: "5.1".into(),
            sandbox: vec![],
            disk_free: 7,
            protocol: self.protocol.unwrap_or(PROTOCOL),
        }
    }
    async fn cancel(&self, run: RunId, _: Option<SessionId>) -> bool {
        run.uuid() == Uuid::from_u128(5)
    }
    async fn reserve(&self, slots: u32, session: SessionId) -> Reserved {
        Reserved {
            boot: BootId::from_uuid(session.uuid()),
            reservations: (0..slots).map(|n| ReservationId(Uuid::from_u128(n.into()))).collect(),
            draining: false,
        }
    }
    async fn hand_back(&self, _: Vec<ReservationId>) {}
    async fn renew(&self, renewal: Renewal) -> Renewed {
        Renewed { boot: BootId::from_uuid(renewal.session.uuid()), runs: renewal.runs }
    }
    async fn permit(&self, grant: PermitGrant) -> Result<(), Refusal> {
        if grant.granted.is_some() { Ok(()) } else { Err(Refusal::NotFound) }
    }
    async fn put_source(&self, run: RunId, given: Given) -> Result<(), Refusal> {
        let Given::Bytes { size, chunks } = given else { return Err(Refusal::NotFound) };
        let chunks: Vec<_> = chunks.collect().await;
        let whole =
            chunks.iter().map(|chunk| chunk.as_ref().map_or(0, bytes::Bytes::len) as u64).sum::<u64>();
        if whole == size && run.uuid() == Uuid::from_u128(4) {
            Ok(())
        } else {
            Err(Refusal::Stale("broke off"))
        }
    }
    async fn read_token(&self, id: Uuid) -> Result<Option<String>, String> {
        match id.as_u128() {
            0 => Err("no storage".into()),
            n => Ok((n > 1).then(|| n.to_string())),
        }
    }
    async fn ack(&self, _: RunId) {}
}

fn attach(epoch: u32) -> RunRequest {
    let id = Uuid::from_u128(1);
    RunRequest {
        task: TaskId::from_uuid(id),
        job: JobId::from_uuid(id),
        run: RunId::from_uuid(id),
        epoch: Epoch(epoch),
        boot: BootId::from_uuid(id),
        session: SessionId::from_uuid(id),
        action: Action::Attach,
    }
}

#[tokio::test]
async fn every_call_survives_the_in_memory_transport() {
    let client = WorkerClient::in_process(Arc::new(Echo::default()));
    let events: Vec<_> = client.run(&attach(1)).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(events, [RunEvent::Accepted, heartbeat(), RunEvent::Finished]);
    let status = client.status().await.unwrap();
    assert_eq!((status.slots, status.draining, status.jobs.len()), (2, true, 1));
    assert!(
        client.cancel(RunId::from_uuid(Uuid::from_u128(5)), SessionId::from_uuid(Uuid::nil())).await.unwrap()
    );
    let session = SessionId::from_uuid(Uuid::from_u128(8));
    let reserved = client.reserve(2, session).await.unwrap();
    assert_eq!((reserved.boot.uuid(), reserved.reservations.len()), (session.uuid(), 2));
    let runs = vec![RunId::from_uuid(Uuid::from_u128(4))];
    let renewal = Renewal { session, runs: runs.clone(), ttl: Duration::from_secs(30), echo: Duration::ZERO };
    assert_eq!(client.renew(&renewal).await.unwrap().runs, runs);
    for (id, read) in [(0, Err("no storage".into())), (1, Ok(None)), (2, Ok(Some("2".into())))] {
        assert_eq!(client.read_token(Uuid::from_u128(id)).await.unwrap(), read);
    }
    let chunks = |parts: &[&'static str], broken: bool| {
        let parts = parts.iter().map(|part| Ok(bytes::Bytes::from_static(part.as_bytes())));
        let end = broken.then(|| Err(std::io::Error::other("disk")));
        stream::iter(parts.chain(end).collect::<Vec<_>>()).boxed()
    };
    let whole = Given::Bytes { size: 6, chunks: chunks(&["abc", "def"], false) };
    assert_eq!(client.put_source(runs[0], whole).await, Ok(()));
    let broken = Given::Bytes { size: 6, chunks: chunks(&["abc"], true) };
    assert_eq!(client.put_source(runs[0], broken).await, Err(CallError::Stale("broke off".into())));
    assert_eq!(client.put_source(runs[0], Given::Gone).await, Err(CallError::NotFound));
    client.ack(runs[0]).await.unwrap();
}

#[tokio::test]
async fn refusals_keep_their_meaning() {
    let client = WorkerClient::in_process(Arc::new(Echo::default()));
    let refused = client.run(&attach(0)).await.err();
    assert_eq!(refused, Some(CallError::Stale("a higher epoch was seen".into())));
}
