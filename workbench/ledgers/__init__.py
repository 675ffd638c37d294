"""Where an answer's margin comes from: ledgers of one fact, of a conflict, in bulk, and where facts should lie."""
