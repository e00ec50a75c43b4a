"""The fleet's web face: page, API, webhooks and keeper in one process (docs/api.md, docs/console.md)."""
