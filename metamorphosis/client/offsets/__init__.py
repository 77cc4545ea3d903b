"""
Where groups keep how far they are: ZooKeeper, MySQL, a local file, or memory. See
``IOffsetStore``.
"""
