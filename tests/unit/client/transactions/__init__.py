"""Transactions of the client, against our broker without network."""
