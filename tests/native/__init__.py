"""Tools that put the part in C under sanitizers; see ``sanitized``."""
