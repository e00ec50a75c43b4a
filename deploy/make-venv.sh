#!/bin/sh
# Make an environment with a new enough pip, or say in one sentence what is missing.
# $1: the Python to use. $2: the environment's folder, .venv if not given.
set -eu
python=${1:-python3}
venv=${2:-.venv}

if ! command -v "$python" >/dev/null 2>&1; then
    echo "make: there is no $python: install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "make: $("$python" --version) is too old: skillbus needs 3.11 or newer; name another with: make PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "make: $python cannot make a virtual environment (no venv or ensurepip): apt-get install python3-venv" >&2
    exit 1
fi
if ! "$venv/bin/python" -c '' 2>/dev/null; then
    echo "venv: making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
# 25.1 is the first pip that reads the dependency groups of pyproject.toml.
"$venv/bin/python" -m pip --quiet --disable-pip-version-check install 'pip>=25.1'
