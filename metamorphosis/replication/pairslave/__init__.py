"""The slave of a synchronous pair: stores what its master sends, and answers when it has it."""
