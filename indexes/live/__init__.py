"""What an index shows at one moment: a generation and the changes since."""
