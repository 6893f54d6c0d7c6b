"""What runs inside of the sandbox: the standard library alone, nothing of ours."""
