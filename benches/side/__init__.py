"""Parts of benches/side_by_side.py."""
