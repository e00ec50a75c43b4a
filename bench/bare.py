"""The measure to hold a pod against: a bare redis-py asyncio subscriber that exits upon the first message."""

from __future__ import annotations

import asyncio
import sys

from redis.asyncio import Redis


async def main(url: str, channel: str) -> None:
    client = Redis.from_url(url)
    pubsub = client.pubsub()
    await pubsub.subscribe(channel)
    async for message in pubsub.listen():
        if message["type"] == "subscribe":
            print("ready", flush=True)
        else:
            break
    print("quiet", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
