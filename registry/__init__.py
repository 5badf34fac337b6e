"""The Document Registry: metadata, its rules, and the queries about it."""
