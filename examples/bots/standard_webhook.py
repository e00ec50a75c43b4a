"""Stops a fleet by a Standard Webhook, with nothing but Python: for a scanner, a pipeline, a product of your own.

CONSOLE=https://console.example.org SECRET_FILE=standard.secret python standard_webhook.py token leaked
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.request
import uuid
from pathlib import Path

secret = Path(os.environ["SECRET_FILE"]).read_text().split()[0]  # printf whsec_; openssl rand -base64 32
body = json.dumps({"type": "skillbus.kill", "data": {"reason": " ".join(sys.argv[1:]), "by": "scanner"}}).encode()
message_id, timestamp = f"msg_{uuid.uuid4().hex}", str(int(time.time()))

key = base64.b64decode(secret.removeprefix("whsec_"))
digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
headers = {
    "Content-Type": "application/json",
    "webhook-id": message_id,  # the same for each try of one order
    "webhook-timestamp": timestamp,  # anew for each try
    "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
}
request = urllib.request.Request(os.environ["CONSOLE"] + "/hooks/standard", body, headers)
with urllib.request.urlopen(request, timeout=10) as answer:  # any other status than 200 raises
    print(answer.read().decode())
