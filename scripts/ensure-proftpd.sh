#!/usr/bin/env bash
# Makes sure that an FTP server (ProFTPD with its TLS module) is there, for tests, which start their own: installs it
# where that needs no questions, else says how.
set -euo pipefail
install=$(dirname "$0")/install.sh

present() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v proftpd >/dev/null &&
        { compgen -G "/usr/lib*/proftpd/mod_tls.so" >/dev/null || compgen -G "/usr/lib*/*/proftpd/mod_tls.so" >/dev/null ||
            PATH="$PATH:/usr/sbin:/usr/local/sbin" proftpd -l 2>/dev/null | grep -q mod_tls; }
}

if present; then
    exit 0
fi

# Debian's package starts a server on port 21 when it is installed, unless it is told not to.
policy=/usr/sbin/policy-rc.d
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
fi
made=
if [ ! -e "$policy" ] && "${as_root[@]}" sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy" 2>/dev/null; then
    made=yes
fi
installed=
if "$install" proftpd-core proftpd-mod-crypto; then
    installed=yes
fi
if [ -n "$made" ]; then
    "${as_root[@]}" rm -f "$policy"
fi
if [ -n "$installed" ] && present; then
    exit 0
fi

cat >&2 <<'TEXT'
The tests need ProFTPD with its TLS module, and start their own. Install it and try again:
  Debian, Ubuntu   sudo apt-get install proftpd-core proftpd-mod-crypto
  Fedora           sudo dnf install proftpd
  Arch, Alpine     install the package proftpd
TEXT
exit 1
