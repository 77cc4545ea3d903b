"""The slave of a synchronous pair: stores its master's records, and acknowledges them."""
