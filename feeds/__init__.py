"""Patient identity feeds: HL7 v2 over MLLP (ITI-8, ITI-64) and HL7 v3 over SOAP (ITI-44). They tell a `Feed` what they hear."""
