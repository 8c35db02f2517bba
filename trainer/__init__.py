"""Training of Propulsion adapters: data, DeepSpeed loop, evaluation. Importing it is cheap."""
