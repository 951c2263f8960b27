"""The synthetic demo set: a data folder of made-up songs in the layout of BirdCLEF, for trying and testing."""
