"""What this computer is and how files are kept on it."""
