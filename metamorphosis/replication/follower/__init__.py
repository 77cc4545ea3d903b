"""The asynchronous slave: reads a master's log with ``get`` and copies it byte for byte."""
