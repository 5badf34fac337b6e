"""The Document Repository: documents by their uniqueId, provided in ITI-41 and given back in ITI-43."""
