"""MetaQ (Metamorphosis 1.4.6.2) on Twisted: a broker for the original clients, and a client."""

__version__ = "0.1.0"
