"""DICOMweb and WADO-URI: the forms of paths, and what answers each (PS3.18)."""
