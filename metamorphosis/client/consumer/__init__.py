"""The consumer, the browser, and reading by hand."""
