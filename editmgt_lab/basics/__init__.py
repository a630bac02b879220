"""What many rooms need beside errors: data types, checks of settings, folders, fingerprints, words in any script."""
