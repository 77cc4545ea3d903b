"""``metaq``: a producer and a consumer for the shell, and commands to operate a cluster."""
