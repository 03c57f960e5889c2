#!/usr/bin/env bash
# Makes sure that ffmpeg and ffprobe are there: installs them where that needs no questions, else says how.
set -euo pipefail

if command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null; then
    exit 0
fi

if "$(dirname "$0")/install.sh" ffmpeg; then
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
