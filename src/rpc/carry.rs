//! Sources that clients gave to the control, sent to the worker that needs them: both sides of `PutSource`.

use std::io;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use super::pb;
use super::pb::source_part::Part;
use super::server::WorkerApi;
use super::wire::{self, Given, InvalidMessage};
use crate::domain::RunId;

/// The parts of a source. An error of the reader ends them early, which the worker notices by the size.
pub(super) fn parts(run: RunId, given: Given) -> impl Stream<Item = pb::SourcePart> + Send + 'static {
    let run_id = wire::raw(run.uuid());
    let first = |part| stream::iter([pb::SourcePart { run_id, part: Some(part) }]);
    match given {
        Given::Gone => first(Part::Gone(pb::Gone {})).chain(stream::empty().boxed()),
        Given::Bytes { size, chunks } => {
            let whole = chunks.scan((), |(), chunk| {
                let chunk = chunk.inspect_err(|error| tracing::warn!(%error, "cannot read a source to send"));
                std::future::ready(chunk.ok())
            });
            let rest =
                whole.map(|chunk| pb::SourcePart { run_id: Bytes::new(), part: Some(Part::Chunk(chunk)) });
            first(Part::Begin(size)).chain(rest.boxed())
        }
    }
}

/// Hands what arrives to the worker.
pub(super) async fn receive<A: WorkerApi>(
    api: &A,
    mut parts: Streaming<pb::SourcePart>,
) -> Result<pb::PutSourceResponse, Status> {
    let first = parts.message().await?.ok_or(InvalidMessage { field: "part" })?;
    let run = RunId::from_uuid(wire::uuid(&first.run_id, "run_id")?);
    let given = match first.part {
        Some(Part::Begin(size)) => Given::Bytes { size, chunks: chunks(parts) },
        Some(Part::Gone(pb::Gone {})) => Given::Gone,
        Some(Part::Chunk(_)) | None => return Err(InvalidMessage { field: "part" }.into()),
    };
    api.put_source(run, given).await?;
    Ok(pb::PutSourceResponse {})
}

fn chunks(parts: Streaming<pb::SourcePart>) -> BoxStream<'static, io::Result<Bytes>> {
    let chunk = |part: Result<pb::SourcePart, Status>| match part.map_err(io::Error::other)?.part {
        Some(Part::Chunk(bytes)) => Ok(bytes),
        Some(Part::Begin(_) | Part::Gone(_)) | None => {
            Err(io::Error::other(InvalidMessage { field: "part" }))
        }
    };
    parts.map(chunk).boxed()
}
