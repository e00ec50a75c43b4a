"""``python -m skillbus`` and the ``skillbus`` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from skillbus.cli import app

    app()


if __name__ == "__main__":
    main()
