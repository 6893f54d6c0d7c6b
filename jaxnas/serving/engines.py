"""What can compute a served model; light, for the command line asks first."""

ENGINES = ("auto", "int8", "float32")
