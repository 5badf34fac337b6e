"""The steps by which the catalogue of documents came to its present form."""
