"""The administrative interface: HTTP with JSON, over a Unix socket that only its user can open."""
