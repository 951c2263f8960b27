"""Teachers: the predictions of stages as a stage of their own, and what students learn from them."""
