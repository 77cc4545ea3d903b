"""ZooKeeper: the registration of a broker with its topics and partitions, and access to the
nodes."""
