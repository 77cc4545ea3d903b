"""The serving side: connections, commands, statistics."""
