"""What the measures say of one model, finding by finding, with what theory expects and whether it is so."""
