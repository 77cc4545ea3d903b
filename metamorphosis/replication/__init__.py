"""The four roles of a replicated broker; ``docs/replication.md`` is the design."""
