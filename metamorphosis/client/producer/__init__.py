"""Sending: plain, ordered and one-way."""
