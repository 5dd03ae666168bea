"""Suite x datasets -> frozen rows with a content hash."""
