"""One process holds the models and the device for several workers, which read, tokenize and answer in front of it."""
