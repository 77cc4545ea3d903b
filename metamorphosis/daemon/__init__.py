"""The process: its parts, the order of their start and stop, and the effect of signals."""
