"""``python -m bench [imports|memory|fanout|skills|fleet|page|streams]…``: run the benches and say which limits hold."""

from __future__ import annotations

import compileall
import math
import sys
import tempfile
from pathlib import Path

import skillbus
from bench import console_page, console_streams, fanout, fleet, imports, memory, skills
from bench.server import Server


def main(names: list[str]) -> int:
    wanted = names or ["imports", "memory", "fanout", "skills", "fleet"]
    rows: list[tuple[str, float, float]] = []
    benches = {"memory": memory, "fanout": fanout, "skills": skills, "fleet": fleet, "page": console_page}
    benches |= {"streams": console_streams}
    # An installed package has its bytecode; a fresh checkout, or one where writing it is switched off, would compile
    # itself anew in every process that is measured.
    for package in (skillbus.__path__[0], Path(__file__).parent):
        compileall.compile_dir(package, quiet=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder / "redis")
        try:
            for bench in wanted:
                if bench == "imports":
                    rows += imports.run(folder)
                else:
                    rows += benches[bench].run(server, folder)
        finally:
            server.stop()
    for what, ratio, limit in rows:
        verdict = "told " if math.isinf(limit) else ("holds" if ratio <= limit else "FAILS")
        print(f"{verdict}  {ratio:5.2f}x (limit {limit:.1f}x)  {what}")
    return 0 if all(ratio <= limit for _, ratio, limit in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
