"""Stage 1: pictures from a source, decoded and measured once; rules with thresholds say which are good to edit."""
