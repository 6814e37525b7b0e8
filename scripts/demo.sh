#!/usr/bin/env bash
# From nothing to reconstructions: makes .venv, installs rtil, trains a vanilla generator and its
# RTIL twin on glyphs, inverts held-out images with both, and writes a report.
# Stopped, it goes on where it was. Takes under ten minutes on two CPU cores once installed.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
install "."
root=${ROOT:-runs/demo}
run() { echo "\$ python -m $*"; .venv/bin/python -m "$@"; }

for rtil in vanilla ilo_mixture; do
    run rtil.train model=stylegan2 rtil=$rtil root="$root"
done
for ratio in 0.05 0.1 0.25; do
    for rtil in vanilla ilo_mixture; do
        run rtil.invert task=cs ratio=$ratio rtil=$rtil root="$root"
    done
done
run rtil.report root="$root"
echo
echo "Open $root/report/report.html (pictures: $root/report/*.png)."
