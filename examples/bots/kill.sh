#!/bin/sh
# Stops a fleet with curl. Tries until the order is recorded, or a minute is over: exit 0 only if it is.
#   CONSOLE=https://console.example.org TOKEN_FILE=bot.token ./kill.sh "token leaked"
#   GROUP=batch ./kill.sh "…"            only that group
# (The token: skillbus token ci --role bot --add tokens > bot.token)
set -eu
reason=${1:?usage: kill.sh REASON}
body=$(REASON=$reason GROUP=${GROUP-} python3 -c '
import json, os
print(json.dumps({"reason": os.environ["REASON"], **({"group": os.environ["GROUP"]} if os.environ["GROUP"] else {})}))')

# The key makes a second try of one order the same order. The header comes from stdin, so no process list shows it.
printf 'Authorization: Bearer %s\n' "$(cat "$TOKEN_FILE")" |
  curl --fail-with-body --silent --show-error --retry 20 --retry-delay 2 --retry-connrefused --retry-max-time 60 \
    -H @- -H 'Content-Type: application/json' -H "Idempotency-Key: kill-$(date +%s)-$$" \
    --data-raw "$body" "$CONSOLE/api/v1/kill"
