"""Drawing of expressions and masks, and the hook that does it while training."""
