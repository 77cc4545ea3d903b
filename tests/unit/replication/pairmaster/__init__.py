"""The synchronous master."""
