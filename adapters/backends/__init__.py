"""Where adapters are kept: one interface, a local folder or any file system of fsspec behind it."""
