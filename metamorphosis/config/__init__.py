"""``server.ini`` and our own settings file, read into frozen values."""
