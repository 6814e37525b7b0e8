#!/usr/bin/env bash
# Makes .venv, installs rtil with its docs extra, builds the site into build/docs/html; a warning is an error.
# Pages of tutorials run as they are built, if they have changed. Arguments go to sphinx-build.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
install ".[docs]"
export PATH=$PWD/.venv/bin:$PATH  # of the commands in tutorials
export PYTHONPATH=$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python -m sphinx -W --keep-going -b html "$@" docs build/docs/html
echo "The site: build/docs/html/index.html"
