"""MetaQ (Metamorphosis 1.4.6.2) on Twisted: a broker that the original Java clients use without
noticing."""

__version__ = "0.1.0"
