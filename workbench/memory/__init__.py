"""Banks of explicit memories from one's own documents: reading them, cutting them up, keeping what was written."""
