"""The released model's size: a checkpoint of random weights in the released layout, and what an edit with it takes."""
