#!/usr/bin/env bash
# One clip through a whole service: starts a server of its own on a free port, submits a job over REST, shows its
# event stream, and prints where the verified result is. Fails if anything on the way does.
#
#   CLIP=file      the source (default: a ten-second test picture with a tone)
#   PRESET=name    how to encode it (default: 720p_h264)
#   DEMO_DIR=dir   where everything goes (default: a new folder below /tmp)
#   FLUX=program   the executable (default: built here)
set -euo pipefail

# Paths are the caller's; the build needs the clone.
clip=
if [ -n "${CLIP:-}" ]; then
    [ -f "$CLIP" ] || { echo "demo failed: there is no file $CLIP" >&2; exit 1; }
    clip=$(cd "$(dirname "$CLIP")" && pwd)/$(basename "$CLIP")
fi
preset=${PRESET:-720p_h264}
dir=${DEMO_DIR:-$(mktemp -d /tmp/flux-demo.XXXXXX)}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
log=$dir/server.log
server=
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "demo failed: $*"
    if [ -s "$log" ]; then
        say "last lines of $log:"
        tail -n 15 "$log" >&2
    fi
    exit 1
}

stop_server() {
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
trap stop_server EXIT
trap 'exit 130' INT TERM

# The value of a field of the outermost object, without its quotes; nothing if there is none.
field() {
    awk -v want="$1" '
        { text = text $0 "\n" }
        END {
            for (i = 1; i <= length(text); i++) {
                c = substr(text, i, 1)
                if (c == "\"") {
                    word = ""
                    while (++i <= length(text) && (c = substr(text, i, 1)) != "\"") {
                        if (c == "\\") c = c substr(text, ++i, 1)
                        word = word c
                    }
                    rest = substr(text, i + 1)
                    if (depth == 1 && word == want && rest ~ /^[ \t\n]*:/) {
                        sub(/^[ \t\n]*:[ \t\n]*/, "", rest)
                        if (rest ~ /^"/) { sub(/^"/, "", rest); sub(/".*/, "", rest) } else sub(/[,} \t\n].*/, "", rest)
                        print rest
                        exit
                    }
                }
                else if (c == "{" || c == "[") depth++
                else if (c == "}" || c == "]") depth--
            }
        }'
}

json_string() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"; }

free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 40000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    return 1
}

build() {
    say "building (the first time takes a few minutes)"
    cargo build --quiet
    local target
    target=$(cargo metadata --format-version 1 --no-deps | sed -nE 's/.*"target_directory":"([^"]*)".*/\1/p')
    FLUX=$target/debug/flux
}

[ -n "${FLUX:-}" ] || build

if [ -z "$clip" ]; then
    clip=$dir/clip.mp4
    say "making a test clip"
    ffmpeg -nostdin -v error -y -f lavfi -i testsrc2=size=1280x720:rate=30:duration=10 \
        -f lavfi -i sine=frequency=440:duration=10 \
        -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac "$clip"
fi

port=$(free_port) || fail "no free port"
url=http://127.0.0.1:$port
# A file of its own and the variables that would outrank it: the demo must not touch anybody's bucket.
printf '[sources]\nfile_roots = [%s]\n' "$(json_string "$(dirname "$clip")")" >"$dir/flux.toml"
env -u API_KEY FLUX__STORAGE__URL="file:$dir/data/storage" \
    "$FLUX" serve --role all --config "$dir/flux.toml" --listen "127.0.0.1:$port" --data-dir "$dir/data" 2>"$log" &
server=$!
for _ in $(seq 150); do
    kill -0 "$server" 2>/dev/null || fail "the server ended"
    curl -fsS -o /dev/null "$url/ready" 2>/dev/null && ready=yes && break
    sleep 0.2
done
[ -n "${ready:-}" ] || fail "the server was not ready after 30 s"
say "server: $url (log: $log)"

body='{"source":{"kind":"file","path":'$(json_string "$clip")'},
       "outputs":[{"preset":'$(json_string "$preset")',
                   "destination":{"kind":"storage","path":"demo/{job_id}/{name}_{preset}.{ext}"}}]}'
answer=$(curl -sS -H 'Content-Type: application/json' -d "$body" "$url/api/v1/jobs") || fail "the job was not taken"
job=$(printf '%s' "$answer" | field job_id)
[ -n "$job" ] || fail "the job was refused: $answer"
say "job: $job ($(basename "$clip") to $preset)"

# One line that is rewritten on a terminal, one line per change of phase elsewhere.
shown=
while IFS= read -r line; do
    case $line in data:*) data=${line#data:} ;; *) continue ;; esac
    phase=$(printf '%s' "$data" | field phase)
    [ -n "$phase" ] && [ "$phase" != null ] || phase=$(printf '%s' "$data" | field status)
    percent=$(printf '%s' "$data" | field progress)
    if [ -t 2 ]; then
        printf '\r  %-10s %5.1f %%  ' "$phase" "${percent/null/0}" >&2
    elif [ "$phase" != "$shown" ]; then
        say "  $phase"
    fi
    shown=$phase
done < <(curl -sSN --max-time 3600 "$url/api/v1/jobs/$job/stream")
[ ! -t 2 ] || say ""

answer=$(curl -fsS "$url/api/v1/jobs/$job") || fail "the job cannot be read"
status=$(printf '%s' "$answer" | field status)
[ "$status" = completed ] || fail "the job ended as ${status:-nothing}: $answer"

stop_server
result=$(find "$dir/data/storage/demo/$job" -type f | sort)
[ -n "$result" ] || fail "the job is completed and there is no result below $dir/data/storage"
say "verified and published:"
while IFS= read -r file; do
    printf '%s\n' "$file"
done <<<"$result"
first=${result%%$'\n'*}
ffprobe -v error -show_entries format=duration,size:stream=codec_name,width,height -of compact "$first" |
    sed 's/^/  /' >&2
