"""The synthetic demo set: a BirdCLEF-shaped folder of made-up songs, for trying and testing."""
