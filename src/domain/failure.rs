//! The catalogue of failures: one code, one class, one retry decision, one human sentence each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose fault it is, which decides who should act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The source or the request.
    Input,
    /// The operator's or client's settings (credentials, destinations).
    Config,
    /// A machine, network or disk; another try may succeed.
    Infrastructure,
    /// flux itself.
    Internal,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $class:ident, $retry:literal;)*) => {
        /// Why something failed. The text form is part of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {$($(#[$doc])* #[serde(rename = $text)] $name,)*}

        impl Code {
            /// Every code, in catalogue order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// The name used in the API, the store and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self {$(Self::$name => $text),*} }
            /// Whose fault it is.
            #[must_use]
            pub const fn class(self) -> Class { match self {$(Self::$name => Class::$class),*} }
            /// Whether flux itself tries again.
            #[must_use]
            pub const fn retryable(self) -> bool { match self {$(Self::$name => $retry),*} }
        }
    };
}

codes! {
    /// The source does not exist (404, 410, no such file, key or upload).
    SourceNotFound = "source_not_found", Input, false;
    /// The source could not be fetched after retries.
    SourceUnreachable = "source_unreachable", Infrastructure, true;
    /// The source's owner refused (401, 403).
    SourceForbidden = "source_forbidden", Config, false;
    /// More bytes than `sources.max_bytes`.
    SourceTooLarge = "source_too_large", Input, false;
    /// Address, scheme or path that this server does not fetch from.
    SourceBlocked = "source_blocked", Input, false;
    /// The source's bytes changed while they were read.
    SourceChanged = "source_changed", Infrastructure, true;
    /// A container, codec or shape that flux does not take.
    MediaUnsupported = "media_unsupported", Input, false;
    /// Not media, or media too broken to use.
    MediaCorrupt = "media_corrupt", Input, false;
    /// The source ends before it says it does.
    MediaTruncated = "media_truncated", Input, false;
    /// A limit of the probe was passed (pixels, streams, duration, rate).
    MediaLimit = "media_limit", Input, false;
    /// The output needs a picture and the source has none.
    NoVideoStream = "no_video_stream", Input, false;
    /// The output needs sound and the source has none.
    NoAudioStream = "no_audio_stream", Input, false;
    /// The clip begins after the source's end.
    ClipOutOfRange = "clip_out_of_range", Input, false;
    /// No preset of that name.
    PresetUnknown = "preset_unknown", Input, false;
    /// No worker has the encoder.
    EncoderUnavailable = "encoder_unavailable", Config, false;
    /// The encoder ended with an error.
    EncodeFailed = "encode_failed", Internal, true;
    /// The encoder was killed by a signal that flux did not send.
    EncoderCrashed = "encoder_crashed", Infrastructure, true;
    /// The encoder made no progress, or ran longer than allowed.
    EncodeTimeout = "encode_timeout", Infrastructure, true;
    /// The output is not what was planned.
    VerificationFailed = "verification_failed", Internal, true;
    /// An object is already there and `overwrite` is `fail`.
    DestinationExists = "destination_exists", Config, false;
    /// The destination refused the write.
    DestinationForbidden = "destination_forbidden", Config, false;
    /// The destination could not be reached after retries.
    DestinationUnreachable = "destination_unreachable", Infrastructure, true;
    /// No room for the source, the output or the record.
    DiskFull = "disk_full", Infrastructure, true;
    /// The worker died or fell silent too often.
    WorkerLost = "worker_lost", Infrastructure, true;
    /// A needed program is missing on the worker.
    ToolMissing = "tool_missing", Config, false;
    /// Somebody cancelled it.
    Cancelled = "cancelled", Input, false;
    /// A defect in flux.
    Internal = "internal", Internal, true;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A classified failure: what the client reads and what the operator needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// The catalogue entry.
    pub code: Code,
    /// One sentence for the client: no host paths, no secrets.
    pub message: String,
    /// More for the operator's log; never shown to clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The meaningful lines of the tool's own log, cleaned of paths and secrets; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl Failure {
    /// A failure with its sentence.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: String::new(), log: Vec::new() }
    }

    /// Adds what only the operator should read.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds tool log lines (the last 20 are kept).
    #[must_use]
    pub fn with_log(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.log = lines.into_iter().collect();
        let excess = self.log.len().saturating_sub(20);
        self.log.drain(..excess);
        self
    }

    /// Whether flux itself tries again.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        self.code.retryable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_read_back() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        for code in Code::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), *code);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn the_log_keeps_the_last_twenty_lines() {
        let failure = Failure::new(Code::EncodeFailed, "x").with_log((0..50).map(|n| n.to_string()));
        assert_eq!(failure.log.len(), 20);
        assert_eq!(failure.log.last().map(String::as_str), Some("49"));
    }
}
