"""Mining of negatives: embedding, exact search, and the bank they end up in."""
