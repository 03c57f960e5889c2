//! From the checked renditions of a set to the files that are published, checked once more as players will read them.

use std::path::PathBuf;

use crate::domain::preset::{Manifest, NameTemplate, PackageSpec, Segment};
use crate::domain::{
    Code, Destination, Failure, FileRole, OutputFile, OutputResult, PublicationId, RenditionResult, beside,
};
use crate::media::lint::{self, Finding, Folder, Rule, Severity};
use crate::media::package::{
    self, AudioRendition, CaptionRendition, Kind, Layout, Manifests, Names, Package, PackageError, Rendition,
    Request,
};
use crate::media::plan::{Language, OutputPlan};
use crate::media::verify::{Verified, digest};
use crate::storage::{SetFiles, StagedFile};

/// Files of one set: what a record and a message between processes hold. A film of ten hours in six renditions has
/// 36,000 segments of 6 s; `single_file` makes seven of them.
const MAX_FILES: usize = 10_000;

/// Findings that are told of a set that fails.
const TOLD: usize = 5;

/// A set to be made.
pub(super) struct Packing<'a> {
    /// Which publication it is for: its folder of segments has a name of its own.
    pub(super) publication: PublicationId,
    pub(super) package: &'a PackageSpec,
    pub(super) destination: &'a Destination,
    /// The run's folder.
    pub(super) work: PathBuf,
    /// The renditions with what was found of them, pictures first.
    pub(super) renditions: Vec<(&'a OutputPlan, &'a Verified)>,
    /// Its subtitles.
    pub(super) captions: Vec<CaptionRendition>,
    pub(super) warnings: Vec<String>,
}

/// A set that is ready.
pub(super) struct Packed {
    pub(super) files: SetFiles,
    /// What the record will say; `url` is filled in by the commit.
    pub(super) result: OutputResult,
}

/// Cuts, lists, checks and hashes.
///
/// # Errors
/// `verification_failed` where the renditions do not fit each other or a player would refuse the set; `media_limit` where
/// it has too many files; `disk_full`, `internal`.
pub(super) async fn pack(packing: Packing<'_>) -> Result<Packed, Failure> {
    let folder = packing.work.join(format!("set-{}", packing.publication));
    let request = request(&packing);
    let made = {
        let folder = folder.clone();
        move || {
            std::fs::create_dir_all(&folder)
                .map_err(|source| PackageError::File { path: folder.clone(), source })?;
            let package = package::package(&request, &folder)?;
            let report = lint::lint_all(&mut Folder::new(&folder), package.entries());
            Ok::<_, PackageError>((package, report))
        }
    };
    let made = tokio::task::spawn_blocking(made).await;
    let (package, report) = made.map_err(|error| unfinished(&error))?.map_err(|error| failure(&error))?;
    // Who does not want playlists of key frames does not get the finding either.
    let wanted = |rule| packing.package.iframes || rule != Rule::IframePlaylist;
    let must = |finding: &&Finding| finding.rule.severity() == Severity::Must && wanted(finding.rule);
    let told: Vec<String> = report.findings.iter().filter(must).take(TOLD).map(ToString::to_string).collect();
    if !told.is_empty() {
        let message = "The packaged set breaks rules that players rely on.";
        return Err(Failure::new(Code::VerificationFailed, message).with_log(told));
    }
    if package.files.len() > MAX_FILES {
        let message = format!(
            "The set has {} files, more than {MAX_FILES}; ask for single_file or longer segments.",
            package.files.len()
        );
        return Err(Failure::new(Code::MediaLimit, message));
    }
    staged(&packing, &package, &folder).await
}

fn request(packing: &Packing<'_>) -> Request {
    let spec = packing.package;
    let layout = match (spec.segment, spec.single_file) {
        (Segment::Ts, _) => Layout::Transport,
        (Segment::Fmp4, false) => Layout::Fragments,
        (Segment::Fmp4, true) => Layout::SingleFile,
    };
    let mut sounds = 0;
    let renditions = packing.renditions.iter().map(|(plan, _)| {
        let kind = match (&plan.video, plan.audio.first()) {
            (None, Some(audio)) => {
                sounds += 1;
                Kind::Audio(AudioRendition {
                    group: "audio".to_owned(),
                    language: audio.language.map(Language::tag),
                    label: audio.language.map(Language::name).unwrap_or_default(),
                    default: sounds == 1,
                })
            }
            _ => Kind::Video,
        };
        let name = plan.rendition.clone().unwrap_or_else(|| "video".to_owned());
        Rendition { file: packing.work.join(&plan.file_name), name, kind }
    });
    Request {
        renditions: renditions.collect(),
        captions: packing.captions.clone(),
        segment_seconds: f64::from(spec.segment_seconds),
        layout,
        iframes: spec.iframes,
        manifests: Manifests {
            hls: spec.manifests.contains(&Manifest::Hls),
            dash: spec.manifests.contains(&Manifest::Dash),
        },
        names: names(packing, layout),
    }
}

/// The lists that clients open stand beside each other; everything else is in the publication's own folder.
fn names(packing: &Packing<'_>, layout: Layout) -> Names {
    let (entry, given) = (file_name(packing.destination), &packing.package.names);
    let (stem, extension) = entry.rsplit_once('.').unwrap_or((entry, ""));
    let list = |kind: &str, usual: String, given: Option<&NameTemplate>| match given {
        _ if extension == kind => entry.to_owned(),
        Some(given) => given.as_str().to_owned(),
        None if matches!(stem, "master" | "manifest") => usual,
        // Two sets in one folder have different names.
        None => format!("{stem}.{kind}"),
    };
    let or = |given: Option<&NameTemplate>, usual| given.map_or(usual, |name| name.as_str().to_owned());
    let usual = Names::of(layout);
    let master = list("m3u8", "master.m3u8".to_owned(), given.master.as_ref());
    let playlist = given.playlist.as_ref().filter(|name| name.tells_renditions_apart());
    let names = Names {
        master: Some(master),
        manifest: list("mpd", usual.manifest, given.manifest.as_ref()),
        playlist: or(playlist, usual.playlist),
        segment: or(given.segment.as_ref(), usual.segment),
        iframes: usual.iframes,
        init: usual.init,
        single: usual.single,
        captions: usual.captions,
        captions_whole: usual.captions_whole,
    };
    names.below(&members(packing.publication))
}

/// The folder that only one publication uses (PROTOCOL §1.2).
pub(super) fn members(publication: PublicationId) -> String {
    publication.to_string().chars().filter(char::is_ascii_hexdigit).take(8).collect()
}

fn file_name(destination: &Destination) -> &str {
    destination.text().rsplit('/').next().unwrap_or_default()
}

async fn staged(
    packing: &Packing<'_>,
    package: &Package,
    folder: &std::path::Path,
) -> Result<Packed, Failure> {
    let entry = file_name(packing.destination);
    let (mut lists, mut members, mut found) = (Vec::new(), Vec::new(), None);
    let mut files = Vec::with_capacity(package.files.len());
    for file in &package.files {
        let path = folder.join(&file.path);
        let sha256 = digest(path.clone()).await?.sha256;
        let (size, content_type) = (file.size, file.content_type.to_owned());
        files.push(OutputFile {
            path: beside(packing.destination.text(), &file.path),
            size,
            sha256: sha256.clone(),
            content_type: content_type.clone(),
            role: Some(file.role),
        });
        let staged = StagedFile { path, size, sha256, content_type };
        match file.path.contains('/') {
            true => members.push((file.path.clone(), staged)),
            false if file.path == entry => found = Some(staged),
            false => lists.push((file.path.clone(), staged)),
        }
    }
    let entry = found.ok_or_else(|| {
        Failure::new(Code::Internal, "The set has no list of the name that it is published under.")
    })?;
    // What clients open comes first.
    files.sort_by_key(|file| (order(file), file.path.clone()));
    let first = |file: &OutputFile| file.path == packing.destination.text();
    if let Some(at) = files.iter().position(first) {
        files[..=at].rotate_right(1);
    }
    Ok(Packed { files: SetFiles { entry, lists, members }, result: result(packing, package, files) })
}

const fn order(file: &OutputFile) -> u8 {
    match file.role {
        Some(FileRole::Master | FileRole::Manifest | FileRole::Thumbnails) => 0,
        Some(FileRole::Playlist | FileRole::IframePlaylist | FileRole::Poster) => 1,
        Some(FileRole::Init) => 2,
        Some(FileRole::Segment | FileRole::Captions | FileRole::Still | FileRole::Sprite) | None => 3,
    }
}

fn result(packing: &Packing<'_>, package: &Package, files: Vec<OutputFile>) -> OutputResult {
    let picture = packing.renditions.iter().find(|(plan, _)| plan.video.is_some()).map(|(_, found)| found);
    let renditions = package.renditions.iter().map(|found| RenditionResult {
        name: found.name.clone(),
        codecs: found.codecs.clone(),
        width: found.picture.map(|picture| picture.width),
        height: found.picture.map(|picture| picture.height),
        frame_rate: found.picture.map(|picture| picture.frame_rate.as_f64()),
        average_bandwidth: found.average_bandwidth,
        peak_bandwidth: found.peak_bandwidth,
        segments: u32::try_from(found.segments).unwrap_or(u32::MAX),
    });
    let mut warnings = packing.warnings.clone();
    for (_, found) in &packing.renditions {
        for warning in &found.warnings {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
    }
    OutputResult {
        url: String::new(),
        files,
        duration_seconds: (package.duration * 1e6).round() / 1e6,
        frames: picture.map(|found| found.frames),
        width: picture.and_then(|found| found.width),
        height: picture.and_then(|found| found.height),
        renditions: renditions.collect(),
        warnings,
        report: None,
    }
}

fn failure(error: &PackageError) -> Failure {
    match error {
        PackageError::File { source, .. } => {
            let full =
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            let code = if full { Code::DiskFull } else { Code::Internal };
            Failure::new(code, "The set could not be written.").with_detail(format!("{error}: {source}"))
        }
        PackageError::Rendition { .. } | PackageError::Misaligned { .. } => {
            Failure::new(Code::VerificationFailed, format!("The set could not be cut: {error}."))
        }
        PackageError::Request(_) | PackageError::Name(_) => {
            Failure::new(Code::Internal, "The set could not be cut.").with_detail(error.to_string())
        }
    }
}

fn unfinished(error: &tokio::task::JoinError) -> Failure {
    Failure::new(Code::Internal, "The packaging did not finish.").with_detail(error.to_string())
}
