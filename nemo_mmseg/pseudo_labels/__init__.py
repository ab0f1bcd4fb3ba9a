"""From response maps to pseudo masks: how networks learn from expressions without masks."""
