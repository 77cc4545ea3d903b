"""
The TCP protocol as values: bytes in, commands out, and back. Uses no Twisted, no clock, no file.
"""
