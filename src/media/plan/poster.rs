//! A poster beside a film, from the pictures that are encoded anyway.

use super::{Feed, Filter, Matrix, OutputPlan, Range, Signal, Twin};
use crate::domain::OutputIndex;
use crate::domain::preset::EncodeSpec;

/// Pictures that are looked at, spread over the film; they are held in memory until one is chosen.
const SAMPLES: u16 = 12;
/// Their distance where nobody knows how long the film is, seconds.
const UNKNOWN: f64 = 10.0;

/// A poster of an output.
#[derive(Debug, Clone, PartialEq)]
pub struct PosterPlan {
    /// The job's output.
    pub index: OutputIndex,
    /// Place of the file whose picture it is made of.
    pub place: usize,
    /// File name in the work folder: `poster-{index}.jpg`.
    pub file_name: String,
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
    /// What is done to the finished picture.
    pub filters: Vec<Filter>,
}

/// What its picture means, where that is of standard range.
fn signal(output: &OutputPlan) -> Option<Signal> {
    let filters = &output.video.as_ref()?.filters;
    match filters.iter().copied().rfind(|filter| matches!(filter, Filter::Tag(_))) {
        Some(Filter::Tag(signal)) if !signal.is_hdr() => Some(signal),
        _ => None,
    }
}

/// The posters that are wanted; of an HDR picture there is none, because it was not brought to standard range.
pub(super) fn plan(
    (outputs, twins): (&mut [OutputPlan], &[Twin]),
    specs: &[(OutputIndex, EncodeSpec)],
    seconds: Option<f64>,
) -> Vec<PosterPlan> {
    let mut posters = Vec::new();
    for (index, _) in specs.iter().filter(|(_, spec)| spec.poster) {
        let largest = |output: &OutputPlan| {
            output.index == *index && output.video.as_ref().is_some_and(|video| video.feed == Feed::Source)
        };
        let own = |output: &OutputPlan| largest(output) && signal(output).is_some();
        let shared = || twins.iter().find(|twin| largest(&twin.output)).map(|twin| twin.of);
        let any = || outputs.iter().position(largest).or_else(shared);
        let Some(place) = outputs.iter().position(own).or_else(any) else { continue };
        let Some(output) = outputs.get_mut(place) else { continue };
        let Some(signal) = signal(output) else {
            output.warnings.push("no_poster_of_hdr".to_owned());
            continue;
        };
        let Some(video) = &output.video else { continue };
        let (width, height) = (video.width, video.height);
        let distance = seconds.map_or(UNKNOWN, |all| all / f64::from(SAMPLES));
        // JFIF means BT.601 in full range.
        let to = Signal { matrix: Matrix::Smpte170m, range: Range::Full, ..signal };
        posters.push(PosterPlan {
            index: *index,
            place,
            file_name: format!("poster-{index}.jpg"),
            width,
            height,
            filters: vec![
                Filter::Spread(distance),
                Filter::Typical(SAMPLES),
                Filter::Scale { width, height, from: signal, to },
            ],
        });
    }
    posters
}
