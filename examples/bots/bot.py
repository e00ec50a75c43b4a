"""Stops a fleet from Python: SKILLBUS_REDIS_URL=redis://scanner:…@redis.internal:6379/0 python bot.py token leaked."""

import sys

import skillbus

killed = skillbus.kill(" ".join(sys.argv[1:]), by="scanner", timeout="10s")  # raises unless the order is recorded
print(killed.sentence)
sys.exit(0 if killed.is_proved else 5)  # recorded, and not every pod is proved stopped: look with skillbus status
