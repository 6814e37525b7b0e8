#!/usr/bin/env bash
# What only a GPU can show, section by section, each within a time limit in seconds:
#     bash scripts/check_gpu.sh DIR [build:120 tests:600 ops:600 memcheck:1800 racecheck:1800 bench:3600]
# Logs and figures go to DIR; the last lines of every section are printed. Exits 1 if one failed.
# One section more, not run unless named, trains vanilla and its RTIL twin side by side until the
# time is over, and goes on from there when it runs again:
#     FACES=FOLDER bash scripts/check_gpu.sh DIR evidence:3600   # faces64_{train,val,test}.zip
set -u
out=${1:?directory for logs and figures}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD:$PWD/scripts${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
library() { "$python" -c "import torch; from rtil.kernels import build; print(build.build(build.arch_of(0)))"; }

# Stopped by a signal, a training writes its checkpoint and generator; 130 is its code then.
evidence() {
    local faces=${FACES:?folder of faces64_train.zip, faces64_val.zip and faces64_test.zip}
    local arm pids=() pid bad=0 common=(
        scale=faces64 data=folder "data.path=$faces/faces64_train.zip"
        "data.val_path=$faces/faces64_val.zip" "data.test_path=$faces/faces64_test.zip"
        data.num_val=null data.num_test=null batch=64 scale.stylegan2.r1_weight=0.3
        total_nimg=4200000 checkpoint_every=64000 samples_every=64000 keep_checkpoints=100
        hardware=gpu "root=$out/evidence")
    for arm in vanilla ilo_mixture; do
        timeout -s INT -k 60 "$1" "$python" -m rtil.train "${common[@]}" rtil=$arm &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid"
        case $? in 0 | 124 | 130) ;; *) bad=1 ;; esac
    done
    return $bad
}

failed=0
for section in "${@:-build:120 tests:600 ops:600 memcheck:1800 racecheck:1800 bench:3600}"; do
    for part in $section; do
        name=${part%%:*} limit=${part##*:}
        case $name in
            build) work=("$python" -m rtil.kernels.build --arch sm_75 sm_90) ;;
            tests) work=("$python" -m pytest -q -m gpu) ;;
            ops) work=("$python" scripts/check_ops.py --large --out "$out/ops.json") ;;
            memcheck | racecheck)
                work=(compute-sanitizer --tool "$name" --error-exitcode 3
                    "$python" -m rtil.kernels.verify "$(library)" 0) ;;
            bench) work=("$python" -m benchmarks --repeats 3 --limit "$limit" --out "$out/bench.json") ;;
            evidence) work=(evidence "$limit") ;;
            *) echo "check_gpu.sh: no section $name" >&2; exit 2 ;;
        esac
        begin=$SECONDS
        if [ "$name" = evidence ]; then
            "${work[@]}" >"$out/$name.log" 2>&1
        else
            timeout "$limit" "${work[@]}" >"$out/$name.log" 2>&1
        fi
        code=$?
        ((code == 0)) || failed=1
        echo "== $name: exit $code after $((SECONDS - begin)) s"
        tail -n 15 "$out/$name.log"
    done
done
exit $failed
