"""The systems that the paper compares RCML with, and later ones, behind one protocol (section 4.2)."""
