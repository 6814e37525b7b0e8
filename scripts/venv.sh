# Sourced by the other scripts: makes .venv and defines `install`.
# PYTHON chooses the interpreter (3.10 or newer).
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "rtil needs Python 3.10 or newer; $python is $("$python" --version 2>&1)." >&2
    echo "Name another with PYTHON=..., e.g. PYTHON=python3.12 bash $0" >&2
    exit 1
fi
if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv
fi

# install SPEC: editable, and only when what it installs from has changed.
install() {
    local stamp=".venv/installed-$(echo "$1" | tr -dc a-z)"
    if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "Installing rtil and what it needs (torch is several GB) ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e "$1"
        touch "$stamp"
    fi
}
