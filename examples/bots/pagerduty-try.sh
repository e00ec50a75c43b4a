#!/bin/sh
# Tries the PagerDuty door with an event signed as PagerDuty signs: it KILLS, in the scope that is named.
#   CONSOLE=https://console.example.org SECRET_FILE=pagerduty.secret ./pagerduty-try.sh group:staging
# (How the subscription itself is made: docs/bots.md.)
set -eu
scope=${1:?usage: pagerduty-try.sh fleet|group:NAME|pod:ID}
body=$(printf '{"event":{"id":"try-%s-%s","event_type":"incident.triggered","occurred_at":"%s","agent":{"summary":"%s"},"data":{"title":"a try of the door [skillbus:kill %s]"}}}' \
  "$(date +%s)" "$$" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(id -un)" "$scope")
signature=$(SECRET_FILE="$SECRET_FILE" BODY="$body" python3 -c '
import hashlib, hmac, os, pathlib
key = pathlib.Path(os.environ["SECRET_FILE"]).read_text().split()[0].encode()
print(hmac.new(key, os.environ["BODY"].encode(), hashlib.sha256).hexdigest())')
curl --fail-with-body --silent --show-error --max-time 10 \
  -H 'Content-Type: application/json' -H "X-PagerDuty-Signature: v1=$signature" \
  --data-raw "$body" "$CONSOLE/hooks/pagerduty"
