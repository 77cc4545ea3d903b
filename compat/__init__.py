"""
Proof with the original: the Java client and the Java broker as peers of ours, see ``README.md``.
"""
