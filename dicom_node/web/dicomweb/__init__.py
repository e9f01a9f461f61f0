"""DICOMweb: studies retrieved, sought and stored by HTTP (PS3.18 chapter 10)."""
