"""The search: trials as chains of stages, on Ray, sampled by Optuna, tracked by MLflow."""
