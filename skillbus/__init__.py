"""A kill switch for fleets of reconcilers."""

__version__ = "0.1.0"
