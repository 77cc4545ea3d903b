"""The partitions of topics, their brokers, and the choice of a partition for a message."""
