"""Learning that knows no physics: networks, scaling, the range of a training."""
