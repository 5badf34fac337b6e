"""What is published of which study, when, with which metadata, and how it is sent (RAD-68)."""
