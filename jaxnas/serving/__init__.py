"""A saved model behind an HTTP interface that editors speak."""
