#!/bin/sh
# promtool, for the test of the alert rules: the one program out of Debian's prometheus package, unpacked beside the
# virtual environment's. Nothing is installed and no service is started, so it needs no rights. Without it that test is
# skipped; another one, which needs no program, finds each metric that a rule asks for.
set -eu
target=$1

if command -v promtool >/dev/null 2>&1 || [ -x "$target" ]; then exit 0; fi

without="the alert rules are checked without promtool"
if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
    echo "promtool: none here, and no apt-get: $without"
    exit 0
fi

echo "promtool: fetching it out of the prometheus package (about 30 MB)"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
cd_and_fetch() {
    cd "$folder"
    apt-get -qq download prometheus && dpkg-deb --extract prometheus_*.deb unpacked
}
if (cd_and_fetch) </dev/null >"$folder/log" 2>&1 && [ -f "$folder/unpacked/usr/bin/promtool" ]; then
    mv "$folder/unpacked/usr/bin/promtool" "$target"
else
    echo "promtool: apt-get could not fetch it ($(tail -n 1 "$folder/log")): $without"
fi
