"""Training memories for a model of one's own: a reader of explicit memories, a bank of parametric blocks."""
