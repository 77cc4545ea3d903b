"""The message log on disk. Knows nothing of the network."""
