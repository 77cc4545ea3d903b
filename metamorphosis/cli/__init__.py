"""``metaq``: producers and consumers for the shell, and a look at positions and topics."""
