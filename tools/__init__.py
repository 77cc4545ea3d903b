"""Programs for working in this checkout; nothing here is installed."""
