"""Ask: facts, models, memories, traces and read-outs. Importing this package imports no torch."""
