#!/usr/bin/env bash
# PostgreSQL for tests, on loopback, in folders of its own, gone afterwards.
#   init FOLDER        makes a cluster; user `postgres`, no password
#   run FOLDER PORT [NAME=VALUE…]   becomes its server, which ends with whoever started it
#   shared PORT        prints the port of the server that all tests share, starting it there if there is none. Whoever
#                      uses it holds a shared lock on the file `users`; ten seconds after the last one it ends.
set -euo pipefail
self=$(readlink -f "$0")

bin=$(compgen -G "/usr/lib/postgresql/*/bin" | sort -V | tail -n 1 || true)
if [ -z "$bin" ]; then
    bin=$(dirname "$(readlink -f "$(command -v initdb || true)")")
fi
if [ ! -x "$bin/initdb" ]; then
    echo "there is no PostgreSQL server on this machine; see scripts/ensure-postgres.sh" >&2
    exit 1
fi

# PostgreSQL refuses to be root.
# Nor may the current folder be one that its user cannot enter.
cd /
user=()
if [ "$(id -u)" -eq 0 ]; then
    name=postgres
    id "$name" >/dev/null 2>&1 || name=nobody
    user=("--reuid=$name" "--regid=$(id -gn "$name")" --clear-groups)
fi
as_user() { setpriv "${user[@]}" "$@"; }

init() {
    if [ "$(id -u)" -eq 0 ]; then
        chown "$name:$(id -gn "$name")" "$1"
    fi
    as_user "$bin/initdb" --pgdata="$1/data" --auth=trust --username=postgres --no-locale --encoding=UTF8 --no-sync \
        >"$1/initdb.log" 2>&1 || { cat "$1/initdb.log" >&2; exit 1; }
}

settings=(-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=300
    -c shared_buffers=64MB -c max_wal_size=2GB -c autovacuum_naptime=10s -c log_min_messages=fatal)

run() {
    local folder=$1 port=$2 more=()
    shift 2
    for setting in "$@"; do
        more+=(-c "$setting")
    done
    exec setpriv "${user[@]}" --pdeathsig QUIT "$bin/postgres" -D "$folder/data" -p "$port" "${settings[@]}" "${more[@]}"
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

base="${TMPDIR:-/tmp}/flux-test-postgres-$(id -u)"

# Serves until nobody has held the lock on `users` for ten seconds.
supervise() {
    local folder=$1 port=$2 idle=0
    (run "$folder" "$port") >"$folder/server.log" 2>&1 &
    local server=$!
    trap 'kill -QUIT $server 2>/dev/null || true' EXIT
    exec 8>>"$base/users"
    while kill -0 "$server" 2>/dev/null; do
        sleep 1
        if flock --nonblock --exclusive 8; then
            idle=$((idle + 1))
            [ "$idle" -ge 10 ] && break
            flock --unlock 8
        else
            idle=0
        fi
    done
    # Still locked: whoever comes now waits until everything is gone.
    rm -f "$base/port"
    kill -QUIT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    rm -rf "$folder"
}

shared() {
    mkdir -p "$base"
    exec 9>>"$base/start"
    flock --exclusive 9
    if [ -f "$base/port" ] && answers "$(cat "$base/port")"; then
        cat "$base/port"
        return
    fi
    rm -rf "$base/port" "$base"/server.*
    local folder
    folder=$(mktemp -d "$base/server.XXXXXX")
    init "$folder"
    setsid "$self" supervise "$folder" "$1" </dev/null >/dev/null 2>&1 9>&- &
    for _ in $(seq 300); do
        if answers "$1" && [ -f "$folder/data/postmaster.pid" ] \
            && [ "$(sed -n 8p "$folder/data/postmaster.pid" | tr -d ' ')" = ready ]; then
            echo "$1" >"$base/port"
            cat "$base/port"
            return
        fi
        sleep 0.1
    done
    cat "$folder/server.log" >&2
    exit 1
}

"$@"
