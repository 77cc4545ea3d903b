"""Reading a partition: requests, records, damage, the next segment."""
