"""The asynchronous slave: follows a master with ``get`` and copies its log byte by byte."""
