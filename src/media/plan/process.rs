//! Which outputs share an ffmpeg process, and files that are made once for all who want them.

use super::{EncodePlan, Feed, OutputPlan, Policy, plan};
use crate::domain::preset::EncodeSpec;
use crate::domain::{Failure, MediaInfo, OutputIndex};

/// Pictures that one process encodes (MEDIA-RULES §5): above it the encoders' threads and buffers outgrow what one
/// decode saves.
const MAX_PICTURES: usize = 12;

/// Outputs with their settings.
type Outputs = Vec<(OutputIndex, EncodeSpec)>;

/// Plans all outputs of a job: the processes in order, and the outputs that cannot be made of this source with why.
#[must_use]
pub fn processes(
    info: &MediaInfo,
    outputs: &[(OutputIndex, EncodeSpec)],
    policy: &Policy,
) -> (Vec<EncodePlan>, Vec<(OutputIndex, Failure)>) {
    let (mut plans, mut refused) = (Vec::new(), Vec::new());
    for mut group in groups(outputs) {
        while !group.is_empty() {
            match plan(info, &group, policy) {
                Ok(plan) => {
                    plans.push(plan);
                    break;
                }
                Err((index, failure)) => {
                    group.retain(|(other, _)| *other != index);
                    refused.push((index, failure));
                }
            }
        }
    }
    (plans, refused)
}

/// Outputs of the same part of the source, as many as one process takes.
fn groups(outputs: &[(OutputIndex, EncodeSpec)]) -> Vec<Outputs> {
    let mut groups: Vec<(usize, Outputs)> = Vec::new();
    for (index, spec) in outputs {
        let pictures = if spec.encoded_picture().is_some() { spec.ladder.len().max(1) } else { 0 };
        let fits = |(taken, group): &&mut (usize, Outputs)| {
            group.first().is_some_and(|(_, other)| other.clip == spec.clip)
                && *taken + pictures <= MAX_PICTURES
        };
        match groups.iter_mut().find(fits) {
            Some((taken, group)) => {
                *taken += pictures;
                group.push((*index, spec.clone()));
            }
            None => groups.push((pictures, vec![(*index, spec.clone())])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// A file that is the same as another one of the process.
#[derive(Debug, Clone, PartialEq)]
pub struct Twin {
    /// The place of the one that is made.
    pub of: usize,
    /// What it is for.
    pub output: OutputPlan,
}

/// Leaves each file in once; the places that chains are fed from follow.
pub(super) fn once(planned: Vec<OutputPlan>) -> (Vec<OutputPlan>, Vec<Twin>) {
    let (mut made, mut twins): (Vec<OutputPlan>, Vec<Twin>) = (Vec::new(), Vec::new());
    let mut places = Vec::with_capacity(planned.len());
    for (rank, mut output) in planned.into_iter().enumerate() {
        output.rank = rank;
        if let Some(video) = &mut output.video
            && let Feed::Picture(larger) = video.feed
        {
            video.feed = Feed::Picture(places.get(larger).copied().unwrap_or(larger));
        }
        let same = |made: &OutputPlan| {
            made.format == output.format
                && made.video == output.video
                && made.audio == output.audio
                && made.copied == output.copied
                && made.captions == output.captions
        };
        if let Some(of) = made.iter().position(same) {
            places.push(of);
            // Sets are cut from renditions, which stay; a file is given away.
            if output.rendition.is_some() {
                output.file_name.clone_from(&made[of].file_name);
            }
            twins.push(Twin { of, output });
        } else {
            places.push(made.len());
            made.push(output);
        }
    }
    (made, twins)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{audio, media, spec, video};
    use super::*;

    fn outputs(bodies: &[(&str, serde_json::Value)]) -> Outputs {
        let of = |(preset, fields): &(&str, serde_json::Value)| spec(Some(preset), fields.clone());
        (0..).map(OutputIndex).zip(bodies.iter().map(of)).collect()
    }

    fn indices(plan: &EncodePlan) -> Vec<u16> {
        plan.outputs.iter().map(|output| output.index.0).collect()
    }

    #[test]
    fn one_process_reads_one_part_and_makes_so_many_pictures() {
        let info = media(vec![video(1920, 1080)], vec![audio(2)]);
        let clip = json!({"clip": {"start": 2, "duration": 3}});
        let wanted = outputs(&[
            ("720p_h264", json!({})),
            ("720p_h264", clip.clone()),
            ("480p_h264", clip),
            ("480p_h264", json!({})),
        ]);
        let (plans, refused) = processes(&info, &wanted, &Policy::default());
        assert_eq!(plans.iter().map(indices).collect::<Vec<_>>(), [[0, 3], [1, 2]]);
        assert!(refused.is_empty());
        assert_eq!(plans[1].expected_seconds, Some(3.0));

        let many: Vec<_> = (0..13).map(|crf| ("480p_h264", json!({"video": {"crf": 20 + crf}}))).collect();
        let (plans, _) = processes(&info, &outputs(&many), &Policy::default());
        assert_eq!(plans.iter().map(|plan| plan.outputs.len()).collect::<Vec<_>>(), [12, 1]);
    }

    #[test]
    fn an_output_that_cannot_be_made_does_not_keep_the_others() {
        let info = media(vec![], vec![audio(2)]);
        let late = json!({"clip": {"start": 10}});
        let wanted = outputs(&[("720p_h264", json!({})), ("audio_m4a", json!({})), ("podcast_mp3", late)]);
        let (plans, refused) = processes(&info, &wanted, &Policy::default());
        assert_eq!(plans.iter().map(indices).collect::<Vec<_>>(), [[1]]);
        let refused: Vec<_> =
            refused.iter().map(|(index, failure)| (index.0, failure.code.as_str())).collect();
        assert_eq!(refused, [(0, "no_video_stream"), (2, "clip_out_of_range")]);
    }

    #[test]
    fn equal_files_are_made_once() {
        let info = media(vec![video(1920, 1080)], vec![audio(2)]);
        let wanted = outputs(&[
            ("dash_1080p", json!({})),
            ("720p_h264", json!({})),
            ("dash_1080p", json!({})),
            ("720p_h264", json!({"audio": {"bitrate": "96k"}})),
            ("720p_h264", json!({})),
        ]);
        let (plans, _) = processes(&info, &wanted[..1], &Policy::default());
        let files = plans[0].outputs.len();
        let (plans, _) = processes(&info, &wanted, &Policy::default());
        let [plan] = &plans[..] else { panic!("one process") };
        assert_eq!(plan.outputs.len(), files + 2, "the set once, two different files");
        let twins: Vec<_> = plan.twins.iter().map(|twin| (twin.output.index.0, twin.of)).collect();
        let mut expected: Vec<_> = (0..files).map(|place| (2, place)).collect();
        expected.push((4, files));
        assert_eq!(twins, expected);
        let feeds = plan.outputs.iter().filter_map(|output| output.video.as_ref().map(|video| video.feed));
        assert!(feeds.enumerate().all(|(n, feed)| !matches!(feed, Feed::Picture(from) if from >= n)));
    }
}
