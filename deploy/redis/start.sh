#!/bin/sh
# Write the ACL file from the environment, then become Redis. Passwords go no further than their sha256: neither the
# file nor the server's environment holds them.
#
# The lines are those of skillbus/control/acl.py (tests/unit/test_compose.py holds the two equal); users.acl.in has them
# with __FLEET__, __TENANT__ and a __..._SHA256__ for each user.
#
#   SKILLBUS_FLEET                 the fleet's name
#   SKILLBUS_TENANT_POD_ID         the one pod id of the tenant's user
#   SKILLBUS_<USER>_PASSWORD       for POD TENANT_POD BOT KEEPER CONSOLE VIEWER OPERATOR ADMIN
set -eu

template=${SKILLBUS_ACL_TEMPLATE:-/etc/skillbus/users.acl.in}
folder=${SKILLBUS_ACL_FOLDER:-/run/skillbus}
users="POD TENANT_POD BOT KEEPER CONSOLE VIEWER OPERATOR ADMIN"

fail() {
    echo "start.sh: $1" >&2
    exit 2
}

checked_name() { # what, name: as skillbus/core/scope.py checks it
    case $2 in
        '' | *[!A-Za-z0-9._-]*) fail "$1 must be 1 to 64 of A-Z a-z 0-9 . _ -" ;;
    esac
    [ "${#2}" -le 64 ] || fail "$1 must be 1 to 64 of A-Z a-z 0-9 . _ -"
}

sha256() {
    printf %s "$1" | sha256sum | cut -c 1-64
}

checked_name SKILLBUS_FLEET "${SKILLBUS_FLEET:-}"
checked_name SKILLBUS_TENANT_POD_ID "${SKILLBUS_TENANT_POD_ID:-}"
script="s/__FLEET__/$SKILLBUS_FLEET/g;s/__TENANT__/$SKILLBUS_TENANT_POD_ID/g"
for user in $users; do
    eval "password=\${SKILLBUS_${user}_PASSWORD:-}"
    [ -n "$password" ] || fail "SKILLBUS_${user}_PASSWORD is empty: every user needs a password of its own"
    script="$script;s/__${user}_SHA256__/$(sha256 "$password")/"
    unset "SKILLBUS_${user}_PASSWORD" password
done

umask 077
mkdir -p "$folder"
sed "$script" "$template" >"$folder/users.acl"
if [ "$(id -u)" = 0 ] && id redis >/dev/null 2>&1; then
    chown -R redis "$folder"
fi

[ "$#" -gt 0 ] || exit 0
exec "$@"
