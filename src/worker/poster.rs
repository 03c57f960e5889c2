//! A film's poster on its way to being published beside it: one of the set's lists, so that it is there before the film
//! is and goes when the film goes.

use super::publish::{Files, staged};
use super::workspace::RunFolder;
use crate::domain::preset::poster_name;
use crate::domain::{Failure, FileRole, OutputFile, OutputResult, OutputSpec, beside};
use crate::media::plan::PosterPlan;
use crate::media::stills;
use crate::media::verify::digest;
use crate::storage::SetFiles;

const JPEG: &str = "image/jpeg";

/// Adds the poster to what is published; a poster that is not whole is left out, and that is said.
pub(super) async fn attach(
    folder: &RunFolder,
    plan: &PosterPlan,
    spec: &OutputSpec,
    (files, mut result): (Files, OutputResult),
) -> Result<(Files, OutputResult), Failure> {
    let path = folder.path().join(&plan.file_name);
    let bytes = tokio::fs::read(&path).await.unwrap_or_default();
    if stills::jpeg_size(&bytes) != Some((plan.width, plan.height)) {
        tracing::warn!(output = %plan.index, bytes = bytes.len(), "the encoder made no whole poster");
        result.warnings.push("poster_missing".to_owned());
        return Ok((files, result));
    }
    let found = digest(path.clone()).await?;
    let entry = spec.destination.text();
    let name = poster_name(entry);
    let file = OutputFile {
        path: beside(entry, &name),
        size: found.size,
        sha256: found.sha256.clone(),
        content_type: JPEG.to_owned(),
        role: Some(FileRole::Poster),
    };
    result.files.insert(result.files.len().min(1), file);
    let poster = (name, staged(&path, found.size, &found.sha256, JPEG));
    let set = match files {
        Files::One(entry) => SetFiles { entry, lists: vec![poster], members: Vec::new() },
        Files::Set(mut set) => {
            set.lists.push(poster);
            set
        }
    };
    Ok((Files::Set(set), result))
}
