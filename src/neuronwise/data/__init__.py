"""Data: facts, photos, texts and word lists."""
