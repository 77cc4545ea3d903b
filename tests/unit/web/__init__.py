"""The administrative interface."""
