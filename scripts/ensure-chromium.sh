#!/usr/bin/env bash
# Makes sure that Chromium is there, in which tests play what was packaged: installs it where that needs no questions,
# else says how.
set -euo pipefail

if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then
    exit 0
fi

if "$(dirname "$0")/install.sh" chromium; then
    exit 0
fi

cat >&2 <<'TEXT'
The tests play their results in Chromium, which is not in PATH. Install it and try again:
  Debian           sudo apt-get install chromium
  Fedora           sudo dnf install chromium
  Arch             sudo pacman -S chromium
TEXT
exit 1
