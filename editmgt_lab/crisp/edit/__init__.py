"""Stage 3: editors behind one protocol, some of them with known faults; candidates, and a judge that picks."""
