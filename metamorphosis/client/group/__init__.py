"""A group: the shares of its members, and their positions."""
