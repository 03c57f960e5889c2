#!/usr/bin/env bash
# One clip through a whole service: starts a server of its own on a free port, submits a job over its API, follows the
# job's event stream, and says where the verified result is. Exits 0 only if there is one; leaves nothing else behind.
#
#   CLIP=file      the source (default: a ten-second test picture with a tone)
#   PRESET=name    how to encode it (default: 720p_h264)
#   DEMO_DIR=dir   where the result goes (default: a new folder below /tmp)
#   FLUX=program   the executable (default: built here)
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }

scratch=
made=
server=
client=

# Nothing outlives the demo, however it ends: no server, no client, no scratch folder, no empty result folder.
cleanup() {
    local pid
    for pid in $client $server; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [ -z "$scratch" ] || rm -rf -- "$scratch"
    [ -z "$made" ] || rmdir -- "$made" 2>/dev/null || true
}
trap cleanup EXIT
trap 'say ""; say "interrupted"; exit 130' INT
trap 'exit 143' TERM HUP

fail() {
    say "demo failed: $*"
    if [ -n "$scratch" ] && [ -s "$scratch/server.log" ]; then
        say "the server's last words:"
        tail -n 15 "$scratch/server.log" >&2
    fi
    exit 1
}

# A text as a string of JSON, which is one of TOML too.
quote() {
    local text=$1
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\t'/\\t}
    text=${text//$'\n'/\\n}
    printf '"%s"' "$text"
}

# Paths are the caller's, so they are resolved before anything else happens.
clip=
if [ -n "${CLIP:-}" ]; then
    [ -f "$CLIP" ] || fail "there is no file $CLIP"
    [ -r "$CLIP" ] || fail "$CLIP is not readable"
    clip=$(cd -- "$(dirname -- "$CLIP")" && pwd -P)/$(basename -- "$CLIP")
fi
preset=${PRESET:-720p_h264}
if [ -n "${DEMO_DIR:-}" ]; then
    mkdir -p -- "$DEMO_DIR"
    results=$(cd -- "$DEMO_DIR" && pwd -P)
else
    results=$(mktemp -d /tmp/flux-demo.XXXXXX)
    made=$results
fi
scratch=$(mktemp -d /tmp/flux-demo-work.XXXXXX)
log=$scratch/server.log
cd -- "$(dirname -- "$0")/.."

if [ -z "${FLUX:-}" ]; then
    say "building flux (the first time takes a few minutes)"
    cargo build >&2
    target=$(cargo metadata --format-version 1 --no-deps | sed -nE 's/.*"target_directory":"([^"]*)".*/\1/p')
    FLUX=$target/debug/flux
fi
# No variable of the caller's may send the demo to anybody's bucket, proxy or server.
flux=(env -i "PATH=$PATH" "TERM=${TERM:-dumb}" "$FLUX")

if [ -z "$clip" ]; then
    clip=$scratch/clip.mp4
    say "making a ten-second test clip"
    ffmpeg -nostdin -v error -y -f lavfi -i testsrc2=size=1280x720:rate=30:duration=10 \
        -f lavfi -i sine=frequency=440:duration=10 \
        -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac "$clip"
fi

cat >"$scratch/flux.toml" <<TOML
[server]
listen = "127.0.0.1:0"
data_dir = $(quote "$scratch/data")
drain_timeout = "0s"
[storage]
url = $(quote "file:$results")
[sources]
file_roots = [$(quote "$(dirname -- "$clip")")]
[log]
format = "json"
TOML
"${flux[@]}" serve --role all --config "$scratch/flux.toml" 2>"$log" &
server=$!
url=
for _ in $(seq 300); do
    url=$(sed -nE 's/.*"ready: (http:[^"]*)".*/\1/p' "$log")
    [ -z "$url" ] || break
    kill -0 "$server" 2>/dev/null || fail "the server ended"
    sleep 0.1
done
[ -n "$url" ] || fail "the server was not ready after 30 s"
say "server   $url (role all: API, queue and workers in one process)"

# What `curl -d @job.json $url/api/v1/jobs` would send.
cat >"$scratch/job.json" <<JSON
{"source": {"kind": "file", "path": $(quote "$clip")},
 "outputs": [{"preset": $(quote "$preset"), "destination": {"kind": "storage", "path": "{name}_{preset}.{ext}"}}]}
JSON
say "source   $clip"
say "preset   $preset"
# In the background, so that a signal is obeyed at once and not after the job.
"${flux[@]}" submit --url "$url" --body "$scratch/job.json" --wait >"$scratch/job.txt" &
client=$!
ended=0
wait "$client" || ended=$?
client=
if [ "$ended" -ne 0 ]; then
    cat "$scratch/job.txt" >&2
    # 1: the job failed, 5: it was refused. Both were explained; anything else is the server's to explain.
    case $ended in 1 | 5) say "demo failed: no result"; exit 1 ;; esac
    fail "flux submit ended with exit code $ended"
fi

kill -TERM "$server"
wait "$server" || fail "the server did not end well"
server=
# Of a set the list to open stands at the top, before its MPD where it has both.
fresh=(-type f -newer "$scratch/job.json")
result=$(find "$results" -maxdepth 1 "${fresh[@]}" | sort | head -n 1)
[ -n "$result" ] || fail "the job is completed and there is no result in $results"
sed -nE 's/^ *(warning: .*)/\1/p' "$scratch/job.txt" >&2
bytes=$(find "$results" "${fresh[@]}" -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
# Streams of a set are told once by themselves and once by their variant.
about=$(ffprobe -v error -show_entries format=duration:stream=codec_name,width,height -of csv=p=0 "$result" |
    awk -F, -v "bytes=$bytes" 'seen[$0]++ { next } NF == 3 { printf "%s %sx%s, ", $1, $2, $3 }
             NF == 1 && /^[a-z]/ { printf "%s, ", $1 } NF == 1 && /^[0-9]/ { seconds = $1 }
             END { printf "%.1f s, %.2f MB", seconds, bytes / 1000000 }')
say "verified and published ($about):"
printf '%s\n' "$result"
printf 'play it with:  ffplay -autoexit %q\n' "$result" >&2
