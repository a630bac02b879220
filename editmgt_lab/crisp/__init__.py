"""The paper's data pipeline: curate pictures → write instructions → make edits → assure quality; its statistics."""
