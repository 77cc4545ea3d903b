"""The Python client: one core, two faces. See docs/client.md."""
