"""ZooKeeper: who this broker is and which topics and partitions it serves."""
