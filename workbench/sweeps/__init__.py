"""Many facts by many methods in many conditions: planned in chunks, measured by processes or Ray, queried by DuckDB."""
