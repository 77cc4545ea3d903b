"""Peers, servers and doubles that tests share."""
