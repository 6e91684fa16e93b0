"""Which channels share a block, where their order is free."""
