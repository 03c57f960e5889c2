//! The checks by name.

/// Whether a breach stops a presentation from being published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Players fail or show the wrong thing.
    Must,
    /// It plays, but not as well as it could.
    Should,
}

impl Severity {
    /// As findings and the docs write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
        }
    }
}

macro_rules! rules {
    ($($variant:ident $name:literal $severity:ident $source:literal $text:literal;)*) => {
        /// One check. The numbers in [`Rule::source`] are those of Apple's HLS authoring specification.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $text] $variant,)*
        }

        impl Rule {
            /// All of them, in the order of the docs.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in findings.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether it must or should hold.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// Who says so.
            #[must_use]
            pub const fn source(self) -> &'static str {
                match self { $(Self::$variant => $source,)* }
            }

            /// One sentence: what holds.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

rules! {
    Fetch "fetch" Must "RFC 8216 §3" "Everything that a manifest names can be read.";
    ByteRange "byte_range" Must "RFC 8216 §4.3.2.2" "Byte ranges lie inside their file and do not overlap.";
    PlaylistSyntax "playlist_syntax" Must "RFC 8216 §4" "Playlists can be read, and have the tags that they must have.";
    Version "version" Must "RFC 8216 §7" "EXT-X-VERSION is high enough for the tags that are used.";
    Vod "vod" Must "Apple 8.6" "Media playlists are EXT-X-PLAYLIST-TYPE:VOD and end with EXT-X-ENDLIST.";
    Map "map" Must "RFC 8216 §4.3.2.5" "Fragmented MP4 has an EXT-X-MAP.";
    Contents "contents" Must "RFC 8216 §3.2, §3.3" "Segments are fragmented MP4 (moof with default-base-is-moof, tfdt and mdat) or MPEG-TS that begins with its tables, and hold media.";
    IndependentSegments "independent_segments" Must "Apple 9.x" "The master playlist says EXT-X-INDEPENDENT-SEGMENTS, or each media playlist does.";
    KeyFrameFirst "key_frame_first" Must "Apple 7.4" "Every video segment begins with an IDR picture.";
    TargetDuration "target_duration" Must "RFC 8216 §4.3.3.1" "No EXTINF, rounded, exceeds EXT-X-TARGETDURATION.";
    SegmentLength "segment_length" Must "Apple 7.7" "No segment lasts more than half a second longer than EXT-X-TARGETDURATION.";
    Extinf "extinf" Must "Apple 8.1" "Each EXTINF is the segment's length, within a frame.";
    DurationSum "duration_sum" Must "Apple 8.1" "The sum of all EXTINF is the length of the media, within a frame.";
    SameTarget "same_target" Must "Apple 8.2" "Audio and video have the same EXT-X-TARGETDURATION.";
    SameBoundaries "same_boundaries" Must "Apple 8.22" "All video renditions are cut at the same instants.";
    TimelineZero "timeline_zero" Must "MEDIA-RULES §1.6" "After edit lists, all renditions begin at the same instant, within a tick.";
    DecodeTimes "decode_times" Must "MEDIA-RULES §1.6" "Segment k has the same decode time (tfdt) in all video renditions.";
    Continuity "continuity" Must "MEDIA-RULES §1.6" "Within a rendition each fragment begins where the one before ended.";
    Priming "priming" Must "MEDIA-RULES §1.6" "The priming of AAC is taken out by an edit list.";
    PeakBandwidth "peak_bandwidth" Must "Apple 1.27, 9.13" "BANDWIDTH is the measured peak of the dearest playable combination, within 10 %.";
    AverageBandwidth "average_bandwidth" Must "Apple 1.26, 9.14" "AVERAGE-BANDWIDTH is given and is the measured average, within 10 %.";
    Codecs "codecs" Must "Apple 9.x" "CODECS is given and names what the init segments and the media are.";
    Resolution "resolution" Must "Apple 9.x" "RESOLUTION is given and is the picture's size.";
    FrameRate "frame_rate" Must "Apple 9.x" "FRAME-RATE is given and is the picture's rate.";
    FrameRateLimit "frame_rate_limit" Must "Apple 1.x" "At most 60 pictures a second.";
    VideoRange "video_range" Must "Apple 9.x" "VIDEO-RANGE is given unless all is SDR, and is what the pictures are.";
    Groups "groups" Must "RFC 8216 §4.3.4.2" "The groups that variants name exist.";
    RenditionNames "rendition_names" Must "RFC 8216 §4.3.4.1.1" "Names differ within a group, and at most one rendition is the default.";
    IframePlaylist "iframe_playlist" Must "Apple 6.1" "There is a playlist of key frames for video.";
    IframeEntries "iframe_entries" Must "RFC 8216 §4.3.3.6" "Each entry of such a playlist is one whole key frame.";
    SegmentFormat "segment_format" Must "Apple 1.5" "HEVC and AV1 are in fragmented MP4.";
    HevcTag "hevc_tag" Must "Apple 1.10" "HEVC is hvc1, so that its parameters are in the init segment alone.";
    Interlaced "interlaced" Must "Apple 1.14" "Pictures are not interlaced.";
    Channels "channels" Must "RFC 8216 §4.3.4.1" "CHANNELS is the number of channels of the sound, where it is given.";
    Autoselect "autoselect" Must "RFC 8216 §4.3.4.1" "DEFAULT=YES goes with AUTOSELECT=YES.";
    Forced "forced" Must "RFC 8216 §4.3.4.1" "FORCED is only said of subtitles.";
    WebVtt "webvtt" Must "W3C WebVTT §4" "Files of subtitles can be read as WebVTT to the end.";
    TimestampMap "timestamp_map" Must "RFC 8216 §3.5" "Each segment of subtitles has an X-TIMESTAMP-MAP that puts the cues' zero where the media begin.";
    CueTimes "cue_times" Must "W3C WebVTT §4.3" "Cues end after they begin, and are in the order of their beginnings.";
    CuePlace "cue_place" Must "RFC 8216 §3.5" "A cue is in every segment that it is shown in, and in no other; in one file it begins before the end of the presentation.";
    CueText "cue_text" Must "W3C WebVTT §4.2" "Cues have no control characters.";
    SubtitlesEnd "subtitles_end" Must "RFC 8216 §6.2.4" "Segments of subtitles end within a segment of the end of the media.";
    MpdSyntax "mpd_syntax" Must "ISO 23009-1 §5.3" "The MPD can be read, is static and has periods, sets and representations with segments.";
    MpdDuration "mpd_duration" Must "ISO 23009-1 §5.3.1.2" "mediaPresentationDuration is the length of the longest rendition, within a frame.";
    MpdTimeline "mpd_timeline" Must "ISO 23009-1 §5.3.9.6" "Segments begin when the MPD or the segment index says, within a frame.";
    Language "language" Should "Apple 8.10" "Renditions of sound and subtitles say their language.";
    LanguageTag "language_tag" Should "RFC 5646 §2.1" "Languages are shaped like BCP 47 tags.";
    Role "role" Should "ISO 23009-1 §5.8.5.5" "Sets of text in an MPD have a Role: subtitle, caption or forced-subtitle.";
    TargetSix "target_six" Should "Apple 7.5" "EXT-X-TARGETDURATION of pictures and sound is 6.";
    KeyInterval "key_interval" Should "Apple 1.13" "There is a key frame every two seconds.";
    PeakToAverage "peak_to_average" Should "Apple 1.30" "The peak is at most twice the average.";
    DefaultVariant "default_variant" Should "Apple 1.32" "The first variant is the one nearest to 2000 kbit/s.";
    TopResolution "top_resolution" Should "Apple 9.10" "There are two variants at the largest resolution.";
    AvcProfile "avc_profile" Should "Apple 1.2, 1.3" "H.264 is High profile, at most level 5.2.";
    StereoAac "stereo_aac" Should "Apple 2.4" "There is sound in stereo AAC, where there is sound.";
    ContentType "content_type" Should "Apple 10.1" "Playlists are served as application/vnd.apple.mpegurl, MPDs as application/dash+xml, WebVTT as text/vtt.";
    Gzip "gzip" Should "Apple 10.1" "Playlists are served compressed.";
}
