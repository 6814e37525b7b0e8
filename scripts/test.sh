#!/usr/bin/env bash
# Makes .venv, installs rtil with its test extra, runs the suite. Arguments go to pytest,
# e.g. `bash scripts/test.sh -m slow`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
install ".[test]"
.venv/bin/ruff check .
.venv/bin/python -m pytest "$@"
