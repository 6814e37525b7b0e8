#!/usr/bin/env bash
# Makes .venv, installs rtil with its test extra, checks style, layers and types, runs the suite. Arguments go to pytest,
# e.g. `bash scripts/test.sh -m slow`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
install ".[test]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/lint-imports
.venv/bin/mypy rtil
# Every process that a test starts would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE
# One worker a core, one thread each; WORKERS=0 runs everything in one process.
cores=$(.venv/bin/python -c 'import os; print(min(8, os.cpu_count() or 1))')
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n "${WORKERS:-$cores}" --dist worksteal "$@"
