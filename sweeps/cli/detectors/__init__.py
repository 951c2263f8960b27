"""Commands that use a trained detector for more than one table: a calibration, a submission, a bundle."""
