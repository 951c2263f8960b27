"""The search: trials as chains of stages, run on Ray, sampled by Optuna, tracked by MLflow."""
