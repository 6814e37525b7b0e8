#!/usr/bin/env bash
# From nothing to reconstructions: makes .venv and installs rtil, then
# 1. inverts photos of faces with a trained generator from PyPI, and letters with those that come with rtil;
# 2. trains a vanilla generator and its RTIL twin on drawn letters, inverts held-out letters with both.
# Each part ends with a page.
#     bash scripts/demo.sh [--quick]    # --quick: the first part alone, two minutes
# Stopped, it goes on where it was. ROOT chooses the folder of its runs, FACES one of your photos of faces.
set -euo pipefail
if [ $# -gt 1 ] || [ "${1:---quick}" != --quick ]; then
    echo "demo.sh: got $*; allowed is --quick, the first part alone." >&2
    exit 2
fi
quick=${1:-}
photos=${FACES:+$(cd "$FACES" && pwd)}
cd "$(dirname "$0")/.."
source scripts/venv.sh
install "."
python=.venv/bin/python
root=${ROOT:-runs/demo}
mkdir -p "$root"
cores=$($python -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
threads=$((cores > 1 ? cores / 2 : 1))
pages=()

# page ROOT: the report on what is below.
page() {
    $python -m rtil.report root="$1" > "$1/report.log" || {
        tail -n 20 "$1/report.log" >&2
        exit 1
    }
    pages+=("$(cd "$1" && pwd)/report/report.html")
    echo "Page: ${pages[${#pages[@]}-1]}"
}

# run MODULE ARGUMENTS: says the command, then runs it.
run() {
    echo
    echo "\$ python -m $*"
    $python -m "$@"
}

faces() {
    local folder="$root/faces" weights count
    mkdir -p "$folder/photos"
    echo
    echo "Faces: a trained generator of the package gan-face-generate (MIT). Its training images are those of"
    echo "DigiFace-1M, whose licence is for research alone."
    # Its weights alone are read: neither its code nor what that depends on is needed.
    $python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
        gan-face-generate==1.1.1 || {
        echo "It cannot be installed here: faces are left out."
        return
    }
    if [ -z "$photos" ]; then
        # Grace Hopper, a photo of the United States Navy in the public domain, comes with matplotlib.
        photos="$folder/photos"
        $python -c '
import sys
from matplotlib import cbook
from PIL import Image

with Image.open(cbook.get_sample_data("grace_hopper.jpg")) as photo:
    photo.crop((130, 60, 400, 330)).save(sys.argv[1])
' "$photos/hopper.png"
    fi
    if [ ! -f "$folder/faces.pt" ]; then
        weights=$($python -c 'import gan_face_generate as package; print(package.__path__[0])')/weights.tar
        $python scripts/import_checkpoint.py "$weights" --out "$folder/faces.pt" model=wrapped > "$folder/import.log"
    fi
    count=$(find "$photos" -type f | head -n 4 | wc -l | tr -d ' ')
    run rtil.invert -m generator="$folder/faces.pt" data=folder data.path="$photos" data.num_val=0 \
        data.num_test="$count" num_images="$count" task=cs,inpainting ratio=0.25 root="$folder"
    page "$folder"
}

# The search of the paper, then the mean of what explains the measurement.
letters() {
    local common=(-m generator=letters,letters-rtil task=cs ratio=0.1 num_images=4 root="$root/letters")
    run rtil.invert "${common[@]}"
    run rtil.invert "${common[@]}" inverter=posterior \
        inverter.maps=3 inverter.map_sigma=1 inverter.map_relative=true inverter.candidates=250
    page "$root/letters"
}

# twins MODULE ARGUMENTS: the vanilla run in the background, the RTIL run in front, half the
# cores each: small networks use two single threads better than one pair.
twins() {
    echo
    echo "\$ python -m $* rtil=vanilla      (beside it, output in $root/vanilla.log)"
    echo "\$ python -m $* rtil=ilo_mixture"
    $python -m "$@" root="$root" rtil=vanilla hardware.threads=$threads \
        > "$root/vanilla.log" 2>&1 &
    local vanilla=$!
    trap 'kill -TERM '$vanilla' 2>/dev/null || true' EXIT
    $python -m "$@" root="$root" rtil=ilo_mixture hardware.threads=$threads
    if ! wait $vanilla; then
        echo "The vanilla run failed:" >&2
        tail -n 20 "$root/vanilla.log" >&2
        exit 1
    fi
    trap - EXIT
}

faces
letters
if [ -z "$quick" ]; then
    # Shorter than scale=demo has it: the whole takes some ten minutes on two cores.
    twins rtil.train model=stylegan2 total_nimg=28000
    for ratio in 0.1 0.25; do
        twins rtil.invert task=cs ratio=$ratio
    done
    page "$root"
fi
echo
echo "Done. Open in a browser:"
printf '    file://%s\n' "${pages[@]}"
