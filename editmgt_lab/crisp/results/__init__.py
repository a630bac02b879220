"""What a run is good for: the data set in the published columns, its losers, statistics, and a card."""
