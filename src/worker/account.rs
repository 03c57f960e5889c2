//! How outputs were made: what becomes of the command line, of the measurements and of the checks in a result.

use std::collections::BTreeMap;

use crate::domain::{KindReport, LoudnessReport, MAX_COMMAND, OutputReport};
use crate::media::argv;
use crate::media::verify::Verified;

/// What one encoder process was told, and what was measured for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    /// Its command line as it was.
    pub(super) argv: Vec<String>,
    /// Versions by name.
    pub(super) tools: BTreeMap<String, String>,
    /// By the name of the file that the sound is in, and which of its sounds it is.
    pub(super) loudness: BTreeMap<(String, usize), LoudnessReport>,
}

impl Account {
    /// The report of the output that these files are, by the names under which they were written.
    pub(super) fn report(&self, files: &[(&str, &Verified)]) -> OutputReport {
        let own: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        let streams = files.iter().flat_map(|(name, found)| {
            let mut track = 0;
            found.streams.iter().cloned().map(move |mut stream| {
                if let KindReport::Audio { loudness, .. } = &mut stream.kind {
                    *loudness = self.loudness.get(&((*name).to_owned(), track)).copied();
                    track += 1;
                }
                stream
            })
        });
        OutputReport {
            streams: streams.collect(),
            command: Some(argv::shown(&self.argv, &own, MAX_COMMAND)),
            tools: self.tools.clone(),
        }
    }
}
