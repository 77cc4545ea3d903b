"""Transactions: their records on disk."""
