"""Predicting many files: finding them, hearing them with a journal, writing what was found."""
