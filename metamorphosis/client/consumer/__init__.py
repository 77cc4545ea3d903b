"""The consumer, the browser, and reading without a group."""
