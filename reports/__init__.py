"""Reports: format what the audit measured; nothing is computed here."""
