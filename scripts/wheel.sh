#!/usr/bin/env bash
# Builds the source archive, and the wheel from it; installs the wheel in an empty environment and
# works with it in an empty folder: theory, a training of both arms, inversions, a report.
#     bash scripts/wheel.sh [DIR]    # keeps archive and wheel in DIR, dist if not said
# PYTHON chooses the interpreter (3.10 or newer). SITE names a folder of packages, as that of another
# environment: what rtil needs is taken from there, and not downloaded again.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

"$python" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet --disable-pip-version-check build
rm -f "$out"/rtil-*.whl "$out"/rtil-*.tar.gz
"$work/build/bin/python" -m build --outdir "$out" . > "$work/build.log" 2>&1 || {
    tail -n 40 "$work/build.log" >&2
    exit 1
}
wheel=("$out"/rtil-*.whl)
echo "Built ${wheel[0]}."

"$python" -m venv "$work/venv"
python=$work/venv/bin/python
alone=()
if [ -n "${SITE:-}" ]; then
    realpath "$SITE" > "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/site.pth"
    alone=(--no-deps --ignore-installed)
fi
"$python" -m pip install --quiet --disable-pip-version-check "${alone[@]}" "${wheel[0]}"

# Nothing of the sources is in reach from here.
mkdir "$work/empty"
cd "$work/empty"
"$python" -c "import rtil; assert rtil.__file__.startswith('$work/venv'), rtil.__file__"
export RTIL_CACHE=$work/cache
run() {
    echo "\$ $*"
    "$@" > "$work/log" 2>&1 || {
        tail -n 40 "$work/log" >&2
        exit 1
    }
    tail -n 2 "$work/log"
}
run "$work/venv/bin/rtil"
run "$python" -m rtil.theory
tiny=(scale=tiny hardware=cpu)
run "$python" -m rtil.train experiment=fig9_samples "${tiny[@]}" total_nimg=64
run "$python" -m rtil.invert -m rtil=vanilla,ilo "${tiny[@]}" task=cs ratio=0.1 num_images=2
# Generators that come with rtil are known by their names.
shopt -s nullglob
for file in "$("$python" -c 'import rtil; print(rtil.__path__[0])')"/generators/*.safetensors; do
    name=$(basename "$file" .safetensors)
    run "$python" -m rtil.invert "generator=$name" hardware=cpu task=cs ratio=0.1 num_images=1
done
run "$python" -m rtil.report
test -s runs/report/report.html
# Kernels of the CPU are built from the sources that the wheel brings along.
if command -v "${CXX:-g++}" > /dev/null; then
    ls "$RTIL_CACHE"/*/librtil_ops.so > /dev/null
fi
echo "The wheel works: ${wheel[0]}"
