#!/bin/sh
# Builds the panel for JupyterLab into labextension/dist. It needs Node.js: installed where we may, else named.
# Argument: the folder of the environment's programs (jupyter-builder comes with JupyterLab).
set -eu

bin=$(cd "$1" && pwd)
cd "$(dirname "$0")/../labextension"

newest() { # whether the build is younger than all that it is made of
    [ -f dist/package.json ] && [ -z "$(find src style package.json tsconfig.json -newer dist/package.json)" ]
}
newest && exit 0

if ! command -v npm >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "lab: the panel is built with Node.js 18 or newer and npm: install them (apt-get install nodejs npm)" >&2
        exit 1
    fi
    echo "lab: installing nodejs and npm"
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends nodejs npm
fi

echo "lab: building the panel"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export PATH="$bin:$PATH"
if ! { npm install --no-audit --no-fund --no-package-lock --ignore-scripts && npm run build; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
touch dist/package.json
