#!/usr/bin/env bash
# Builds garage, a strict S3 server of its own kind, for `make test-garage`: five minutes of CPU and half a gigabyte of disk, once,
# below the user's cache. FLUX_TEST_GARAGE names a program that is there already. Prints where it is.
set -euo pipefail
version=2.5.0
folder=${XDG_CACHE_HOME:-$HOME/.cache}/flux/garage-$version

if [ -n "${FLUX_TEST_GARAGE:-}" ]; then
    if [ ! -x "$FLUX_TEST_GARAGE" ]; then
        echo "FLUX_TEST_GARAGE names $FLUX_TEST_GARAGE, which is no program." >&2
        exit 1
    fi
    echo "$FLUX_TEST_GARAGE"
    exit 0
fi
if [ ! -x "$folder/bin/garage" ]; then
    echo "building garage $version below $folder" >&2
    # Not in the target folder of this project: its own lock file, its own dependencies.
    CARGO_TARGET_DIR=$folder/target "${CARGO:-cargo}" install --locked --debug --version "$version" --root "$folder" garage >&2
    rm -rf "$folder/target"
fi
echo "$folder/bin/garage"
