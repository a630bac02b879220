"""What many rooms need beside errors: data types, folders, fingerprints, words in any script."""
