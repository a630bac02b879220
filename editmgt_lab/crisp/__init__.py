"""The paper's data pipeline: curate pictures → write instructions → make edits → assure their quality; its statistics."""
