//! Versions that encoders tell in ffmpeg's log.

/// Longest version that is kept.
const LONGEST: usize = 60;

/// The encoder and its version, from the one line that says it.
pub(super) fn told(line: &str) -> Option<(&'static str, String)> {
    let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest);
    let (name, version) = if line.contains("[libx264") {
        ("libx264", after("264 - core ")?.split(" - ").next()?)
    } else if let Some(version) = line.strip_prefix("x265 [info]: HEVC encoder version ") {
        ("libx265", version)
    } else if let Some(version) = after("SVT-AV1 Encoder Lib ") {
        ("libsvtav1", version)
    } else if line.contains("[libvpx-vp9") {
        ("libvpx-vp9", after("[info] ").filter(|rest| rest.starts_with('v'))?)
    } else {
        return None;
    };
    let fits = |c: &char| c.is_ascii_alphanumeric() || " .+-_".contains(*c);
    let version: String = version.trim().chars().take_while(fits).take(LONGEST).collect();
    (!version.is_empty()).then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ffmpeg_5_are_read() {
        for (line, name, version) in [
            (
                "[libx264 @ 0x5] [info] 264 - core 164 r3095 baee400 - H.264/MPEG-4 AVC codec - Copyleft",
                "libx264",
                "164 r3095 baee400",
            ),
            ("x265 [info]: HEVC encoder version 3.5+1-f0c1022b6", "libx265", "3.5+1-f0c1022b6"),
            ("Svt[info]: SVT [version]:\tSVT-AV1 Encoder Lib v1.4.1", "libsvtav1", "v1.4.1"),
            ("[libvpx-vp9 @ 0x5] [info] v1.12.0", "libvpx-vp9", "v1.12.0"),
        ] {
            assert_eq!(told(line), Some((name, version.to_owned())));
        }
        assert_eq!(told("[libx264 @ 0x5] [info] profile High, level 3.1"), None);
        assert_eq!(told("[libvpx-vp9 @ 0x5] [verbose] --prefix=/usr"), None);
    }
}
