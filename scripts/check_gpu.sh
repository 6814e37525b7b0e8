#!/usr/bin/env bash
# What only a GPU can show, section by section, each within a time limit in seconds:
#     bash scripts/check_gpu.sh DIR [build:120 tests:600 ops:600 memcheck:1800 racecheck:1800 bench:3600]
# Logs and figures go to DIR; the last lines of every section are printed. Exits 1 if one failed.
set -u
out=${1:?directory for logs and figures}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD:$PWD/scripts${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
library() { "$python" -c "import torch; from rtil.ops import build; print(build.build(build.arch_of(0)))"; }

failed=0
for section in "${@:-build:120 tests:600 ops:600 memcheck:1800 racecheck:1800 bench:3600}"; do
    for part in $section; do
        name=${part%%:*} limit=${part##*:}
        case $name in
            build) work=("$python" -m rtil.ops.build --arch sm_75 sm_90) ;;
            tests) work=("$python" -m pytest -q -m gpu) ;;
            ops) work=("$python" scripts/check_ops.py --large --out "$out/ops.json") ;;
            memcheck | racecheck)
                work=(compute-sanitizer --tool "$name" --error-exitcode 3
                    "$python" -m rtil.ops.selfcheck "$(library)" 0) ;;
            bench) work=("$python" scripts/bench.py --repeats 3 --limit "$limit" --out "$out/bench.json") ;;
            *) echo "check_gpu.sh: no section $name" >&2; exit 2 ;;
        esac
        begin=$SECONDS
        timeout "$limit" "${work[@]}" >"$out/$name.log" 2>&1
        code=$?
        ((code == 0)) || failed=1
        echo "== $name: exit $code after $((SECONDS - begin)) s"
        tail -n 15 "$out/$name.log"
    done
done
exit $failed
