"""Ray runs what the other packages do on one process: training now, serving and more later."""
