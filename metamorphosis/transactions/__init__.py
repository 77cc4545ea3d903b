"""Local and XA transactions: the journal, its recovery, and the transactions that are open."""
