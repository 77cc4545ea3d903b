"""Which partitions a topic has, where they are, and which one a message goes to."""
