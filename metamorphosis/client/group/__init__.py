"""A group and its members: who reads what, and how far it is."""
