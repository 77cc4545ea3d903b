"""The process: which parts there are, the order of their start and stop, what signals do."""
