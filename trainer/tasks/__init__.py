"""What a model learns from a record, one module for each kind of task."""
