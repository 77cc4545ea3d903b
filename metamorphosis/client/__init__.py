"""The Python client: one core, and three faces. See docs/client.md."""
