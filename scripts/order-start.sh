#!/usr/bin/env bash
# Writes start.order: the functions that idle processes ran, those first of which they ran most. The linker lays them side
# by side (build.rs), so that few pages of the program are needed. To be run now and then, and after a new compiler that
# names functions differently; names that no longer exist do no harm. Needs valgrind. FLUX=program that was built as below.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || { echo "valgrind is needed and not in PATH" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${FLUX:-} ]]; then
    cargo rustc --profile dist --locked --bin flux -- -C strip=none
    FLUX=${CARGO_TARGET_DIR:-target}/dist/flux
fi

for role in worker control all; do
    port=(--listen 127.0.0.1:0)
    [[ $role != worker ]] || port=()
    FLUX__WORKER__LISTEN=127.0.0.1:0 valgrind -q --tool=callgrind --demangle=no --compress-strings=no --compress-pos=no \
        --callgrind-out-file="$work/$role.out" \
        "$FLUX" serve --role "$role" --data-dir "$work/$role" "${port[@]}" 2>"$work/$role.log" &
    # Started, its encoders proved, and a while of doing nothing.
    sleep 30
    kill "$!"
    wait "$!" || { cat "$work/$role.log" >&2; exit 1; }
    awk -v program="${FLUX##*/}" '
        /^ob=/ { n = split($0, path, "/"); ours = path[n] == program }
        /^fn=/ && ours { name = substr($0, 4); sub(/\x27[0-9]+$/, "", name); print name }
    ' "$work/$role.out" | sort -u
done | sort -u >"$work/ran"

# Rust's names have hashes that differ between builds: without them a name stands for all instances of a generic function.
# The more of it ran, the earlier it comes.
nm -S --defined-only --radix=d "$FLUX" | awk '
    function pattern(name) {
        sub(/\.llvm\.[0-9]+$/, "", name)
        if (sub(/17h[0-9a-f]+E$/, "17h*", name)) return name
        if (name ~ /^_R/) {
            gsub(/Cs[0-9A-Za-z]+_/, "Cs*_", name)
            return name
        }
        sub(/\.(constprop|isra|part)\..*$/, "*", name)
        return name ~ /^[a-z][A-Za-z0-9_]*\*?$/ ? name : ""
    }
    NR == FNR { ran[$1]; next }
    NF == 4 && tolower($3) == "t" {
        name = pattern($4)
        if (name == "") next
        all[name] += $2
        if ($4 in ran) used[name] += $2
    }
    END { for (name in used) printf "%.3f %s\n", used[name] / all[name], name }
' "$work/ran" - | sort -k1,1nr -k2,2 | cut -d ' ' -f 2 >start.order
wc -l start.order >&2
