"""Query/Retrieve over DIMSE (PS3.4 Annex C; IHE RAD-14, RAD-16): what is stored here is found, and sent to where it is wanted."""
