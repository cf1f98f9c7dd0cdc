#!/usr/bin/env bash
# Counts the instructions of each case of the benches and holds them against benches/instructions.txt, to within 2 %.
#   benches/instructions.sh             fails (1) when a count is off, or a case is missing in the table or in the benches
#   benches/instructions.sh --update    writes the table
# Exit 77: skipped, and why. Instructions are repeatable where times are not; they are counted by valgrind's callgrind.
# Own code is held to the table. What runs in libc (memcpy, malloc) depends on its version, on the CPU's features and on where
# the heap puts what is copied (seen: 72 % more for the same build), so it is shown and not held; tests/copies.rs counts copies.
set -euo pipefail
cd "$(dirname "$0")/.."
table=benches/instructions.txt
runs=10 # as in instructions.rs

skip() { echo "SKIP instruction counts: $1"; exit 77; }

[ "$(uname -m)" = x86_64 ] || skip "the table is for x86_64, this is $(uname -m)"
pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
rustc=$(rustc --version | cut -d' ' -f2)
[ "$rustc" = "$pinned" ] || skip "the table is for rustc $pinned, this is $rustc"
if ! command -v valgrind >/dev/null; then
    { apt-get install -y -q valgrind || { apt-get update -q && apt-get install -y -q valgrind; }; } >/dev/null 2>&1 ||
        skip "valgrind is not installed and could not be"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo bench --locked -p ringtail --no-run --bench instructions --message-format=json >"$work/build"
exe=$(grep '"name":"instructions"' "$work/build" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)

avx2=no; grep -qw avx2 /proc/cpuinfo && avx2=yes
machine="rustc $rustc, glibc $(getconf GNU_LIBC_VERSION | cut -d' ' -f2), avx2 $avx2"

# Counts one case: "name own libc", per run.
count() {
    local name=$1 out="$work/${1//\//.}"
    valgrind --tool=callgrind --collect-atstart=no --toggle-collect='instructions::measured*' \
        --callgrind-out-file="$out" "$exe" "$name" >"$out.log" 2>&1 || { cat "$out.log" >&2; return 1; }
    # Self cost by object: a line of cost after `calls=` is the callee's, which is counted where it stands itself.
    awk -v name="$name" -v runs="$runs" '
        # An object is named in full where it first appears, as the caller (ob) or as the callee (cob).
        /^c?ob=/ { match($0, /\([0-9]+\)/); object = substr($0, RSTART, RLENGTH)
                   path = substr($0, RSTART + RLENGTH + 1); if (path != "") paths[object] = path
                   if ($0 ~ /^ob=/) id = object; next }
        /^calls=/ { skip = 1; next }
        /^[0-9+*-]/ { if (skip) { skip = 0; next } if (NF > 1) { if (paths[id] ~ /\/instructions-/) own += $2; else libc += $2 } }
        END { if (own == 0) { print name ": nothing was counted" > "/dev/stderr"; exit 1 }
              printf "%s %.0f %.0f\n", name, own / runs, libc / runs }' "$out"
}
export -f count
export work exe runs

"$exe" >"$work/names"
xargs -P "$(nproc)" -I{} bash -c 'set -euo pipefail; count "$1" >"$work/${1//\//.}.count"' _ {} <"$work/names"
while read -r name; do cat "$work/${name//\//.}.count"; done <"$work/names" >"$work/counts"

if [ "${1:-}" = --update ]; then
    {
        echo "# Instructions of one run: in our own code, and in libc. Made by benches/instructions.sh --update on"
        echo "# $machine"
        awk '{ printf "%-54s %12s %12s\n", $1, $2, $3 }' "$work/counts"
    } >"$table"
    cat "$table"
    exit
fi

grep -v '^#' "$table" | awk '
    function off(now, then) { d = now - then; if (d < 0) d = -d; return d > then * 0.02 }
    function percent(now, then) { return then ? (now - then) * 100 / then : 0 }
    NR == FNR { own[$1] = $2; other[$1] = $3; next }
    {
        seen[$1] = 1
        if (!($1 in own)) { print "FAIL " $1 ": not in the table"; bad = 1; next }
        wrong = off($2, own[$1])
        printf "%-4s %-54s own %10d (%+.2f %%)  libc %10d (%+.2f %%)\n", wrong ? "FAIL" : "ok", $1, $2,
            percent($2, own[$1]), $3, percent($3, other[$1])
        bad = bad || wrong
    }
    END {
        for (name in own) if (!(name in seen)) { print "FAIL " name ": in the table, but not in the benches"; bad = 1 }
        if (bad) print "Better or meant: benches/instructions.sh --update, and say why in the commit."
        exit bad
    }' - "$work/counts"
