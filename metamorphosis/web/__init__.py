"""The administrative interface: HTTP with JSON, over a Unix socket for the broker's user only."""
