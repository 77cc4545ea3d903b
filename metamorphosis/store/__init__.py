"""The message log on disk. It does not depend on the network."""
