#!/usr/bin/env bash
# Makes sure that the emulator of Azure's storage is there, for tests: a pinned version in a folder of the user's cache.
# The tests look for it in the same place. FLUX_EMULATORS names another folder.
set -euo pipefail
version=3.35.0
folder=${FLUX_EMULATORS:-${XDG_CACHE_HOME:-$HOME/.cache}/flux/emulators}/azurite-$version
main=$folder/node_modules/azurite/dist/src/blob/main.js

if ! command -v node >/dev/null; then
    "$(dirname "$0")/install.sh" nodejs npm || true
fi
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "The tests need node and npm, for the emulator of Azure's storage. Install them and try again." >&2
    exit 1
fi
if [ -f "$folder/complete" ]; then
    exit 0
fi

# Beside the folder first: half an installation must not look like one.
mkdir -p "$(dirname "$folder")"
half=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$half"' EXIT
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$half" "azurite@$version" >&2
[ -f "$half/${main#"$folder/"}" ]
touch "$half/complete"
mv -T "$half" "$folder" 2>/dev/null || [ -f "$folder/complete" ]
