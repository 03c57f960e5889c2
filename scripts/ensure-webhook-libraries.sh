#!/usr/bin/env bash
# Makes sure that the official Standard Webhooks libraries for Python and JavaScript are there: a test lets them check
# what this server sends. Installed once, below the cache folder; nothing else on the machine is touched.
set -euo pipefail
install=$(dirname "$0")/install.sh
folder=${FLUX_WEBHOOK_LIBRARIES:-${XDG_CACHE_HOME:-$HOME/.cache}/flux/webhook-libraries-1}

missing() {
    echo "The tests check webhooks with the official libraries and need $1 for that; install it and try again." >&2
    exit 1
}

if [ -e "$folder/complete" ]; then
    exit 0
fi
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    "$install" python3-venv || missing "Python 3 with venv"
fi
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    "$install" nodejs npm || missing "Node.js with npm"
fi
echo "installing the Standard Webhooks libraries below $folder" >&2
rm -rf "$folder"
mkdir -p "$folder"
python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check --no-deps standardwebhooks==1.1.0
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts --no-package-lock --prefix . \
    standardwebhooks@1.1.1 @stablelib/base64@1.0.1 fast-sha256@1.3.0)
touch "$folder/complete"
