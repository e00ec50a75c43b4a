"""``skillbus config``: what is in force, and where it came from."""

from __future__ import annotations

from skillbus.cli.console import stdout
from skillbus.cli.options import FleetOption, OutputOption, RedisOption, settings_for
from skillbus.output import Output, print_json, spoken


def config(output: OutputOption = Output.TABLE, fleet: FleetOption = None, redis: RedisOption = None) -> None:
    """Show the settings in force and where each came from; secrets are masked."""
    with spoken("config", output):
        from rich.table import Table
        from rich.text import Text

        from skillbus.settings import origins

        given = frozenset(name for name, value in (("fleet", fleet), ("redis_url", redis)) if value is not None)
        rows = origins(settings_for(fleet, redis), given)
        if output is Output.JSON:
            print_json("config", {"settings": [{"name": n, "value": v, "from": f} for n, v, f in rows]})
            return
        table = Table("setting", box=None, pad_edge=False)
        table.add_column("value", overflow="fold")  # what was cut cannot be checked
        table.add_column("from", overflow="fold")
        for name, value, source in rows:
            table.add_row(name, Text(value), source)
        stdout().print(table)
