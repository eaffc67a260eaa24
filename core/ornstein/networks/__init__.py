"""Networks. Importing this package loads nothing; import a class from its module."""
