//! Two passes: the first encodes to nothing and leaves what it saw in the work folder, the second reads it.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::{EncodeRequest, Tick, encode};
use crate::domain::{Code, Failure};
use crate::media::Toolbox;
use crate::media::plan::{EncodePlan, PASS_LOGS};

/// Runs the first pass of `whole`; `request` is that of [`EncodePlan::first_pass`].
///
/// # Errors
/// Those of [`encode`], and `internal` where its files cannot be given to the second pass.
pub async fn first_pass(
    toolbox: &Toolbox,
    request: EncodeRequest<'_>,
    whole: &EncodePlan,
    on_tick: &mut (dyn FnMut(Tick) + Send),
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let work = request.work;
    let renamed = whole.renamed_logs(request.plan);
    encode(toolbox, request, on_tick, cancel).await?;
    for (from, to) in renamed {
        tokio::fs::rename(work.join(from), work.join(to)).await.map_err(|error| {
            Failure::new(Code::Internal, "What the first pass wrote down is gone.")
                .with_detail(error.to_string())
        })?;
    }
    Ok(())
}

/// Removes what the first pass left. The folder goes with the run; what lies in it until then takes room for nothing.
pub async fn forget_passes(work: &Path) {
    let Ok(mut files) = tokio::fs::read_dir(work).await else { return };
    while let Ok(Some(file)) = files.next_entry().await {
        if file.file_name().to_string_lossy().starts_with(PASS_LOGS) {
            let _ = tokio::fs::remove_file(file.path()).await;
        }
    }
}
