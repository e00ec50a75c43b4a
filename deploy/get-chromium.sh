#!/bin/sh
# Debian's Chromium, for the tests of the page: installed where we may. Without it these tests cannot run, and the run fails.
set -eu

command -v chromium >/dev/null 2>&1 && exit 0

how="the tests of the page need Chromium: apt-get install chromium fonts-dejavu-core"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "chromium: none here: $how" >&2
    exit 1
fi

echo "chromium: installing it"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core; } \
    </dev/null >"$log" 2>&1; then
    echo "chromium: apt-get could not install it ($(tail -n 1 "$log")): $how" >&2
    exit 1
fi
