//! What retention is about to remove: for people who want to see it first.

use super::columns::{Cells, Columns};
use super::{Result, UploadRecord};
use crate::domain::{
    Destination, JobId, JobSpec, JobStatus, OutputResult, PublicationId, Tenant, Timestamp, UploadId, Waste,
};

/// What a round would remove.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Doomed {
    /// Jobs with their events, attempts and logs, oldest first.
    pub jobs: Vec<DoomedJob>,
    /// Uploads that no job used in time.
    pub uploads: Vec<UploadRecord>,
    /// Things already out of the record whose bytes are to be removed.
    pub garbage: u64,
    /// Whether there are more jobs or uploads than were asked for.
    pub more: bool,
}

/// A job that would go.
#[derive(Debug, Clone, PartialEq)]
pub struct DoomedJob {
    /// Its id.
    pub id: JobId,
    /// Its owner.
    pub tenant: Tenant,
    /// How it ended.
    pub status: JobStatus,
    /// When.
    pub finished_at: Timestamp,
    /// Where what it published lies; goes only with `retention.delete_results`.
    pub results: Vec<Destination>,
}

/// Puts the answer together from rows of jobs, of their completed outputs and of uploads, one more than `most` of each.
pub(super) fn doomed<R: Cells>(
    (jobs, outputs, uploads): (&[R], &[R], &[R]),
    garbage: u64,
    most: u32,
) -> Result<Doomed> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let more = jobs.len() > most || uploads.len() > most;
    let published = published(outputs)?;
    let job = |row| {
        let columns = Columns { table: "jobs", row };
        let spec: JobSpec = columns.json("spec")?;
        let id = columns.id("id")?;
        let results = results(id, &spec, &published);
        Ok(DoomedJob {
            id: JobId::from_uuid(id),
            tenant: columns.name("tenant")?,
            status: columns.state("status", JobStatus::from_number)?,
            finished_at: columns.time("finished_at")?,
            results: results.map(|(destination, _)| destination).collect(),
        })
    };
    let upload = |row| {
        let columns = Columns { table: "uploads", row };
        Ok(UploadRecord {
            id: UploadId::from_uuid(columns.id("id")?),
            tenant: columns.name("tenant")?,
            name: columns.text("key")?,
            size: columns.narrow("size")?,
            etag: columns.maybe_text("etag")?,
            expires_at: columns.time("expires_at")?,
        })
    };
    Ok(Doomed {
        jobs: jobs.iter().take(most).map(job).collect::<Result<_>>()?,
        uploads: uploads.iter().take(most).map(upload).collect::<Result<_>>()?,
        garbage,
        more,
    })
}

/// A publication on record.
pub(super) struct OnRecord {
    job: uuid::Uuid,
    output: usize,
    publication: PublicationId,
    /// The other files of a set.
    others: Vec<String>,
}

/// Publications on record.
type Published = Vec<OnRecord>;

/// From rows of completed outputs.
pub(super) fn published<R: Cells>(outputs: &[R]) -> Result<Published> {
    let one = |row| {
        let columns = Columns { table: "outputs", row };
        let result: Option<OutputResult> = columns.maybe_json("result")?;
        Ok(OnRecord {
            job: columns.id("job_id")?,
            output: columns.narrow::<u16>("idx")?.into(),
            publication: PublicationId::from_uuid(columns.id("publication")?),
            others: result.map(|result| result.others()).unwrap_or_default(),
        })
    };
    outputs.iter().map(one).collect()
}

fn results<'a>(
    job: uuid::Uuid,
    spec: &'a JobSpec,
    published: &'a Published,
) -> impl Iterator<Item = (Destination, &'a OnRecord)> + 'a {
    published.iter().filter(move |found| found.job == job).filter_map(|found| {
        // What only its request could reach stays: its credentials are gone.
        let output = spec.outputs.get(found.output).filter(|output| !output.destination.needs_request())?;
        Some((output.destination.clone(), found))
    })
}

/// What a job published, for the sweeper.
pub(super) fn waste(job: uuid::Uuid, spec: &JobSpec, published: &Published) -> Vec<Waste> {
    results(job, spec, published)
        .map(|(destination, found)| Waste::Result {
            destination: Box::new(destination),
            publication: found.publication,
            others: found.others.clone(),
        })
        .collect()
}
