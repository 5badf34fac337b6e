"""The Imaging Document Source: what instances are stored, and how they are given."""
