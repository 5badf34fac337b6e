"""Imaging reports of HL7 v2 (ORU, MDM) to documents: what a message says, what is made of it, and how that is submitted."""
