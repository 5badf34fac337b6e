"""The ways in that are no HTTP: DIMSE with storage commitment, a watched folder, files of an administrator."""
