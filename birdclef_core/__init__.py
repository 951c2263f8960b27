"""The domain: recordings, spectrograms, models, stages and scores. It never imports ray, optuna, mlflow or sweeps."""
