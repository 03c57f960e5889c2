#!/usr/bin/env bash
# Makes sure that the programs of a PostgreSQL server are there, for tests: installs them where that needs no questions,
# else says how.
set -euo pipefail
install=$(dirname "$0")/install.sh

if compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || command -v initdb >/dev/null; then
    exit 0
fi

# Debian's package makes a cluster and starts it, unless it is told not to before.
no_cluster() {
    local shell=(sh)
    if [ "$(id -u)" -ne 0 ]; then
        shell=(sudo -n sh)
    fi
    "${shell[@]}" -c 'echo "create_main_cluster = false" >>/etc/postgresql-common/createcluster.conf'
}

if "$install" postgresql-common && no_cluster && "$install" postgresql; then
    exit 0
fi

cat >&2 <<'TEXT'
The tests need the programs of a PostgreSQL server (initdb, postgres), and start their own. Install them and try again:
  Debian, Ubuntu   sudo apt-get install postgresql
  Fedora           sudo dnf install postgresql-server
  Arch             sudo pacman -S postgresql
  Alpine           apk add postgresql
TEXT
exit 1
