#!/usr/bin/env bash
# From nothing to reconstructions: makes .venv, installs rtil, trains a vanilla generator and its
# RTIL twin on glyphs, inverts held-out images with both, and writes a report.
# Stopped, it goes on where it was. ROOT chooses the folder of its runs.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
install "."
root=${ROOT:-runs/demo}
mkdir -p "$root"
cores=$(.venv/bin/python -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
threads=$((cores > 1 ? cores / 2 : 1))

# twins MODULE ARGUMENTS: the vanilla run in the background, the RTIL run in front, half the
# cores each: small networks use two single threads better than one pair.
twins() {
    echo
    echo "\$ python -m $* rtil=vanilla      (beside it, output in $root/vanilla.log)"
    echo "\$ python -m $* rtil=ilo_mixture"
    .venv/bin/python -m "$@" root="$root" rtil=vanilla hardware.threads=$threads \
        > "$root/vanilla.log" 2>&1 &
    local vanilla=$!
    trap 'kill -TERM '$vanilla' 2>/dev/null || true' EXIT
    .venv/bin/python -m "$@" root="$root" rtil=ilo_mixture hardware.threads=$threads
    if ! wait $vanilla; then
        echo "The vanilla run failed:" >&2
        tail -n 20 "$root/vanilla.log" >&2
        exit 1
    fi
    trap - EXIT
}

twins rtil.train model=stylegan2
for ratio in 0.05 0.1 0.25; do
    twins rtil.invert task=cs ratio=$ratio
done
echo
.venv/bin/python -m rtil.report root="$root"
echo
echo "Done. Open $root/report/report.html; its pictures are $root/report/*.png."
