"""How audio files are built up (OGG, MP3, FLAC, WAV), so that all of their sound is read and what is missing is counted."""
