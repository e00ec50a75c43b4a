#!/bin/sh
# The suites of the Jupyter extension, each in an environment of its own, with skillbus installed as a user installs it:
# a wheel, the panel in it. notebook-intelligence is for the side-by-side tests alone; where it cannot be installed they
# skip, and this says so.
# Arguments: the Python to use, then pytest's own.
set -eu

python=$1
shift
cd "$(dirname "$0")/.."

environment() { # name, what to install besides skillbus[jupyter,hub]
    venv=$1
    shift
    sh deploy/make-venv.sh "$python" "$venv"
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check install ".[jupyter,hub]" "$@" &&
        "$venv/bin/python" -m pip --quiet --disable-pip-version-check install --force-reinstall --no-deps .
}

echo "test-jupyter: installing"
environment .venv-jupyter --group jupyter
if environment .venv-nbi "notebook-intelligence>=6.2"; then
    SKILLBUS_TEST_NBI=$PWD/.venv-nbi/bin/python
    export SKILLBUS_TEST_NBI
else
    echo "test-jupyter: NOTEBOOK-INTELLIGENCE CANNOT BE INSTALLED HERE: what concerns both side by side is not tested" >&2
fi

proxy=.venv-jupyter/node
[ -x $proxy/node_modules/.bin/configurable-http-proxy ] ||
    npm install --loglevel=error --no-audit --no-fund --prefix $proxy configurable-http-proxy >/dev/null || {
    echo "test-jupyter: JupyterHub's proxy cannot be installed: npm must reach a registry (npm config get registry)" >&2
    exit 1
}
PATH=$PWD/$proxy/node_modules/.bin:$PATH

echo "test-jupyter: types"
.venv-jupyter/bin/python -m mypy skillbus/jupyter/*.py tests/jupyter/*.py

echo "test-jupyter: tests"
exec .venv-jupyter/bin/python -m pytest -c tests/jupyter/pytest.ini --rootdir . "$@" tests/jupyter
