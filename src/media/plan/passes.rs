//! The first of two passes: the pictures that want one are encoded to nothing, and their encoders write down what they saw.

use super::{EncodePlan, Feed, OutputPlan, VideoPlan};
use crate::domain::preset::{Passes, Rate, VideoCodec};

impl EncodePlan {
    /// The pictures that are encoded twice, and those that they are made of, without sound; `None` = one pass does.
    ///
    /// Chains of filters are those of the whole plan, so both passes see the same pictures.
    #[must_use]
    pub fn first_pass(&self) -> Option<Self> {
        let mut wanted: Vec<usize> = Vec::new();
        for (place, output) in self.outputs.iter().enumerate() {
            if output.video.as_ref().is_some_and(VideoPlan::has_two_passes) {
                wanted.push(place);
            }
        }
        if wanted.is_empty() {
            return None;
        }
        // Larger pictures stand before those made of them.
        for at in (0..self.outputs.len()).rev() {
            let feed = self.outputs[at].video.as_ref().map(|video| video.feed);
            if let (true, Some(Feed::Picture(larger))) = (wanted.contains(&at), feed)
                && !wanted.contains(&larger)
            {
                wanted.push(larger);
            }
        }
        wanted.sort_unstable();
        let moved = |output: &OutputPlan| {
            let mut output =
                OutputPlan { audio: Vec::new(), copied: Vec::new(), captions: Vec::new(), ..output.clone() };
            if let Some(video) = output.video.as_mut()
                && let Feed::Picture(larger) = video.feed
            {
                video.feed = Feed::Picture(wanted.iter().position(|place| *place == larger).unwrap_or(0));
            }
            output
        };
        let outputs = wanted.iter().filter_map(|place| self.outputs.get(*place)).map(moved).collect();
        Some(Self { outputs, twins: Vec::new(), posters: Vec::new(), captions: Vec::new(), ..self.clone() })
    }

    /// Where ffmpeg itself keeps what an encoder wrote down, the number of its stream in the process is part of the
    /// file's name: (as the first pass calls it, as this plan's process does).
    #[must_use]
    pub fn renamed_logs(&self, first: &Self) -> Vec<(String, String)> {
        let own = |plan: &Self, name: &str| {
            let mut streams = 0;
            for output in &plan.outputs {
                if output.file_name == name {
                    break;
                }
                let encoded = usize::from(output.video.is_some()) + output.audio.len();
                streams += encoded + output.copied.len() + output.captions.len();
            }
            format!("{}-{streams}.log", pass_log(name))
        };
        let kept_by_ffmpeg = |output: &&OutputPlan| {
            output
                .video
                .as_ref()
                .is_some_and(|video| video.codec == VideoCodec::Vp9 && video.has_two_passes())
        };
        let names = first.outputs.iter().filter(kept_by_ffmpeg).map(|output| output.file_name.as_str());
        names.map(|name| (own(first, name), own(self, name))).filter(|(from, to)| from != to).collect()
    }
}

impl VideoPlan {
    /// Whether its encoder sees the whole picture once before it writes.
    #[must_use]
    pub const fn has_two_passes(&self) -> bool {
        matches!(self.rate, Rate::Bitrate { passes: Passes::Two, .. })
    }
}

/// What begins the names of the files between two passes.
pub(in crate::media) const PASS_LOGS: &str = "pass-";

/// The name of what the first pass writes down for an output; encoders add endings of their own.
pub(in crate::media) fn pass_log(file_name: &str) -> String {
    format!("{PASS_LOGS}{file_name}")
}
