"""``python -m bench [fanout|memory|imports]…``: run the benches and say which limits hold."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench import fanout, imports, memory
from bench.server import Server


def main(names: list[str]) -> int:
    wanted = names or ["imports", "memory", "fanout"]
    rows: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder / "redis")
        try:
            for bench in wanted:
                if bench == "imports":
                    rows += imports.run(folder)
                else:
                    rows += {"memory": memory, "fanout": fanout}[bench].run(server, folder)
        finally:
            server.stop()
    for what, ratio, limit in rows:
        print(f"{'holds' if ratio <= limit else 'FAILS'}  {ratio:5.2f}x (limit {limit:.1f}x)  {what}")
    return 0 if all(ratio <= limit for _, ratio, limit in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
