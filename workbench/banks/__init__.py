"""Banks of parametric blocks: writing them, growing clusters of documents, routing, blocking, measuring."""
