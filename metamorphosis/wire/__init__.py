"""
The TCP protocol as values: bytes in, commands out, and back. Knows no Twisted, no clock, no file.
"""
