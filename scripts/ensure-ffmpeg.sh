#!/usr/bin/env bash
# Makes sure that ffmpeg and ffprobe are there: installs them where that needs no questions, else says how.
set -euo pipefail

if command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
fi
if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
    echo "installing ffmpeg (apt-get)" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ffmpeg >&2
    exit 0
fi

cat >&2 <<'TEXT'
ffmpeg and ffprobe are needed and not in PATH. Install them and try again:
  Debian, Ubuntu   sudo apt-get install ffmpeg
  Fedora           sudo dnf install ffmpeg-free
  Arch             sudo pacman -S ffmpeg
  Alpine           apk add ffmpeg
TEXT
exit 1
