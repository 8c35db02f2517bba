"""What takes more than one process: training jobs, serving replicas, and watching them."""
