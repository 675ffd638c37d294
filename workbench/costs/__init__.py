"""What memory costs: operations to write and read each format, numbers and bytes of banks, time to load blocks."""
