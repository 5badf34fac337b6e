"""The words of the domain: what IHE calls a DocumentEntry, a SubmissionSet, a stored query, an error code.

Standard library only. Everything else in xdsi speaks in these types.
"""
