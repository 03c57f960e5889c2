#!/usr/bin/env bash
# Makes sure that moto is there, for a test: of the S3 servers that can be had, it is the one that knows ACLs. A pinned
# version in an environment of its own, below the user's cache. FLUX_MOTO names another folder.
set -euo pipefail
version=5.2.5
folder=${FLUX_MOTO:-${XDG_CACHE_HOME:-$HOME/.cache}/flux/moto-$version}

if [ -e "$folder/complete" ]; then
    exit 0
fi
if ! python3 -c 'import ensurepip, venv' 2>/dev/null && ! "$(dirname "$0")/install.sh" python3-venv; then
    echo "The tests need moto, an S3 server, and Python 3 with venv for it. Install python3-venv and try again." >&2
    exit 1
fi
echo "installing moto $version below $folder (300 MB)" >&2
rm -rf "$folder"
mkdir -p "$folder"
python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check "moto[s3,server]==$version"
touch "$folder/complete"
