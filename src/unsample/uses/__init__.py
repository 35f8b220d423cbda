"""What a user calls, a function per use."""
