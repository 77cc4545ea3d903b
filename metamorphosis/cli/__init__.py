"""``metaq``: a producer and a consumer for the shell, and commands to show and operate a cluster."""
