"""Transactions of the client: local ones, XA branches, and two phases with a database."""
