"""A run as one page that opens without a network: HTML, SVG, and a little script."""
