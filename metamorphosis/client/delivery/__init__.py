"""From a batch of messages to the listener, the iteration, the acknowledgement."""
