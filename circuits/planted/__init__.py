"""Models whose circuit is known because it was planted, and how well each method finds it."""
